package daemon

import (
	"bufio"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"example.com/tiffin/cache"
	"example.com/tiffin/cdc"
)

// lossy is an index that loses the first change that it is told of.
type lossy struct {
	cdc.Index
	once sync.Once
}

func (l *lossy) Apply(t *cache.Txn, c cache.Commit) error {
	l.once.Do(func() { t.Discard() })
	return l.Index.Apply(t, c)
}

func (r *running) audit(t *testing.T) (lines []string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Post(r.url+"/audit", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	for s := bufio.NewScanner(response.Body); s.Scan(); {
		if !strings.Contains(s.Text(), `"phase"`) {
			lines = append(lines, s.Text())
		}
	}
	return lines
}

// A row that the daemon's index lost is named by the daemon's own audit.
func TestDaemonNamesWhatItsIndexLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := start(t, w.environ, func(o *Options) { o.spoil = func(i cdc.Index) cdc.Index { return &lossy{Index: i} } })
	r.waitReady(t)
	if lines := r.audit(t); len(lines) != 1 || !strings.HasPrefix(lines[0], `{"ok":true,"index":"running",`) {
		t.Errorf("before anything was lost: %q", lines)
	}
	w.db.Exec(t, "INSERT INTO subscribers_restaurants (client_id, restaurant_id) VALUES ('dan', 'r1')", "DELETE FROM subscribers_restaurants WHERE client_id = 'cid'")
	lines := r.audit(t)
	want := []string{
		`{"restaurant":"r1","client":"dan","difference":"row 4: the index does not know its id"}`,
		`{"restaurant":"r1","difference":"the index has 2 rows, the table 3"}`,
		`{"restaurant":"r1","client":"dan","difference":"in the table, not in the index"}`,
	}
	var summary AuditSummary
	if len(lines) == 0 || json.Unmarshal([]byte(lines[len(lines)-1]), &summary) != nil || summary.OK || summary.Differences != 3 || summary.Rows != 3 ||
		!slices.Equal(lines[:len(lines)-1], want) {
		t.Errorf("got %q, want %q and a summary", lines, want)
	}
}
