package acceptance

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"example.com/tiffin/internal/manual"
)

// The board asks the data source that compose provisions, and what it offers to choose from exists: a
// wrong name of either leaves every panel empty.
func TestBoardAsksTheDataSourceThatThereIs(t *testing.T) {
	t.Parallel()
	var provisioned struct{ Datasources []dataSource }
	if err := yaml.Unmarshal([]byte(manual.Text(t, "deploy/compose/grafana-datasource.yaml")), &provisioned); err != nil {
		t.Fatal(err)
	}
	var board any
	if err := json.Unmarshal([]byte(manual.Text(t, "deploy/grafana/tiffin.json")), &board); err != nil {
		t.Fatal(err)
	}
	asked := map[dataSource]int{}
	collectSources(board, asked)
	if len(asked) == 0 {
		t.Error("the board names no data source")
	}
	for wanted, times := range asked {
		if !slices.Contains(provisioned.Datasources, wanted) {
			t.Errorf("%d times the board asks %+v, there is %+v", times, wanted, provisioned.Datasources)
		}
	}
}

// dataSource is one of Grafana, as a board and its provisioning name it.
type dataSource struct{ Type, UID string }

// collectSources counts the values of all keys "datasource", whatever they belong to.
func collectSources(value any, asked map[dataSource]int) {
	switch value := value.(type) {
	case []any:
		for _, item := range value {
			collectSources(item, asked)
		}
	case map[string]any:
		for key, item := range value {
			if named, ok := item.(map[string]any); ok && key == "datasource" {
				kind, _ := named["type"].(string)
				uid, _ := named["uid"].(string)
				asked[dataSource{kind, uid}]++
			}
			collectSources(item, asked)
		}
	}
}

func TestBoardOffersProcessesByAMetricThatExists(t *testing.T) {
	t.Parallel()
	text := manual.Text(t, "deploy/grafana/tiffin.json")
	var board struct {
		Templating struct {
			List []struct {
				Name  string
				Query struct{ Query string }
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &board); err != nil {
		t.Fatal(err)
	}
	// Which servers it waits for does not matter.
	w := &world{t: t, env: []string{
		"TIFFIN_SOURCE_DSN=postgres://u@127.0.0.1:1/d", "TIFFIN_FEEDBACK_DSN=postgres://u@127.0.0.1:1/d", "TIFFIN_KAFKA_BROKERS=127.0.0.1:1",
		"TIFFIN_HTTP_LISTEN=" + freeAddress(t),
	}}
	w.start("run")
	r := &recording{address: strings.TrimPrefix(w.env[len(w.env)-1], "TIFFIN_HTTP_LISTEN=")}
	w.eventually("metrics", func() bool { return len(r.scrape()) > 0 })
	shown := strings.Join(slices.Collect(maps.Keys(r.scrape())), "\n")
	offered := []string{}
	for _, variable := range board.Templating.List {
		offered = append(offered, variable.Name)
		// Prometheus adds instance to whatever it scrapes.
		found := regexp.MustCompile(`^label_values\((\w+), instance\)$`).FindStringSubmatch(variable.Query.Query)
		if found == nil || !regexp.MustCompile(`(?m)^`+found[1]+`(\{|$)`).MatchString(shown) {
			t.Errorf("$%s is %s, and there is no such metric", variable.Name, variable.Query.Query)
		}
	}
	if len(offered) == 0 {
		t.Error("the board offers nothing to choose from")
	}
	for _, used := range regexp.MustCompile(`\$([a-z]\w*)`).FindAllStringSubmatch(text, -1) {
		if !slices.Contains(offered, used[1]) {
			t.Errorf("a query uses $%s, the board offers %q", used[1], offered)
		}
	}
}
