package daemon

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/tiffin/cache"
	"example.com/tiffin/cdc"
	"example.com/tiffin/internal/pulse"
)

// stuck is an index that hangs in its first transaction until it is released.
type stuck struct {
	cdc.Index
	entered, released chan struct{}
	once              sync.Once
}

func (s *stuck) Apply(t *cache.Txn, c cache.Commit) error {
	s.once.Do(func() {
		close(s.entered)
		<-s.released
	})
	return s.Index.Apply(t, c)
}

func (r *running) livez(t *testing.T) (status int, body string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(r.url + "/livez")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// A reader that hangs in the index is noticed although everything else goes on: /livez says so, the
// service manager's watchdog is fed no more, and it is alive again should it go on after all.
func TestHangingReaderEndsLiveness(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	index := &stuck{entered: make(chan struct{}), released: make(chan struct{})}
	release := sync.OnceFunc(func() { close(index.released) })
	defer release()
	var ahead atomic.Int64
	var told atomic.Pointer[string]
	r := start(t, w.environ, func(o *Options) {
		o.spoil = func(i cdc.Index) cdc.Index { index.Index = i; return index }
		o.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		o.Notify = func(state string) { told.Store(&state) }
	})
	r.waitReady(t)
	w.db.Exec(t, "INSERT INTO subscribers_restaurants (client_id, restaurant_id) VALUES ('dan', 'r1')")
	<-index.entered
	if status, body := r.livez(t); status != http.StatusOK {
		t.Errorf("within the limit: %d %s", status, body)
	}
	if state := *told.Load(); !strings.HasPrefix(state, "WATCHDOG=1") {
		t.Errorf("within the limit the manager is told %q", state)
	}
	eventually(t, func() bool { // the clock runs ahead until the limit has passed
		ahead.Add(int64(pulse.Limit / 20))
		status, body := r.livez(t)
		return status == http.StatusServiceUnavailable && strings.Contains(body, "source: the reader hangs: no sign of life for ")
	}, "/livez says what hangs")
	eventually(t, func() bool {
		state := *told.Load()
		return strings.HasPrefix(state, "STATUS=source: the reader hangs") && !strings.Contains(state, "WATCHDOG")
	}, "the manager is told what hangs, and nothing of a sign of life")
	release()
	eventually(t, func() bool {
		status, _ := r.livez(t)
		return status == http.StatusOK && strings.HasPrefix(*told.Load(), "WATCHDOG=1")
	}, "it is alive again")
}
