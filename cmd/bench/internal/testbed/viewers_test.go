package testbed

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// Every viewer asks for the page and follows its events; one that is refused is a fault, or the page
// would seem to cost nothing.
func TestViewersLook(t *testing.T) {
	t.Parallel()
	var documents, streams atomic.Int64
	page := http.NewServeMux()
	page.HandleFunc("GET /{$}", func(http.ResponseWriter, *http.Request) { documents.Add(1) })
	page.HandleFunc("GET /live/events", func(w http.ResponseWriter, r *http.Request) {
		if streams.Add(1) > 3 {
			http.Error(w, "too many", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("retry: 2000\n\ndata: {}\n\ndata: {}\n\n"))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	page.HandleFunc("GET /live/campaigns", func(http.ResponseWriter, *http.Request) {})
	server := httptest.NewServer(page)
	defer server.Close()
	tiffin := &Tiffin{url: server.URL}
	if events, err := tiffin.View(t.Context(), 3).Stop(); err != nil || events < 3 || documents.Load() != 3 {
		t.Errorf("%d events, %d documents, %v", events, documents.Load(), err)
	}
	if _, err := tiffin.View(t.Context(), 1).Stop(); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("a viewer that is refused: %v", err)
	}
}
