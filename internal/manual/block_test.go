package manual

import (
	"fmt"
	"testing"
)

// A block that the parser overlooks is a block that no test executes.
func TestNoBlockIsOverlooked(t *testing.T) {
	t.Parallel()
	blocks, err := parse("a.md", "x\n```sh one\nls   # list\n# all\npwd\n```\n\n```\nplain\n```\n")
	if err != nil {
		t.Fatal(err)
	}
	const want = `[{a.md 2 sh one ls   # list
# all
pwd
} {a.md 8  plain
}]`
	if got := fmt.Sprint(blocks); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if got := blocks[0].Code(); got != "ls\npwd\n" {
		t.Errorf("without comments: %q", got)
	}
	for _, text := range []string{"```sh\nls\n", "  ```sh\nls\n  ```\n", "~~~sh\nls\n~~~\n", "```sh\n```sql\n```\n"} {
		if blocks, err := parse("a.md", text); err == nil {
			t.Errorf("%q: no error, and %v", text, blocks)
		}
	}
}
