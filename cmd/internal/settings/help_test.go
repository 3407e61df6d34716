package settings

import (
	"os"
	"strings"
	"testing"
)

func TestHelpNamesEveryKey(t *testing.T) {
	t.Parallel()
	for _, key := range Keys() {
		if !strings.Contains(Help(), key.Name+" ") || !strings.Contains(Help(), key.Doc) {
			t.Errorf("the help lacks %s", key.Name)
		}
		if key.Doc == "" || key.Required && key.Default != "" || !key.Required && key.Default == "" && key.Fallback == "" {
			t.Errorf("%s: wants a line of documentation and what it is when unset", key.Name)
		}
	}
}

func TestReadmeListsEveryKeyWithItsDefault(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"README.md", "README.ru.md"} {
		text, err := os.ReadFile("../../../" + name)
		if err != nil {
			t.Fatal(err)
		}
		rows := map[string]string{}
		for line := range strings.Lines(string(text)) {
			if cells := strings.Split(line, "|"); len(cells) > 3 {
				rows[strings.Trim(cells[1], " `")] = strings.Trim(cells[2], " `")
			}
		}
		for _, key := range Keys() {
			shown, listed := rows[key.Name]
			if !listed {
				t.Errorf("%s lacks %s", name, key.Name)
			} else if key.Default != "" && shown != key.Default {
				t.Errorf("%s: %s has the default %q, the program %q", name, key.Name, shown, key.Default)
			}
		}
		for row := range rows {
			if strings.Contains(row, ".") && !strings.Contains(row, " ") && isSection(strings.Split(row, ".")[0]) && !known(row) {
				t.Errorf("%s: there is no setting %s", name, row)
			}
		}
	}
}
