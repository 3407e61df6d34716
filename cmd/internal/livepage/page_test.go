package livepage

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.com/tiffin/stream"
)

const hostile = `</script><img src=x onerror=alert(1)>"'` + "\u202e\u2028"

// ledger is a manifest of one message.
type ledger struct{ asked int }

func (l *ledger) Recent(context.Context) ([]stream.Explanation, error) {
	l.asked++
	id := hostile
	return []stream.Explanation{{Trigger: "campaigns/0/1", Outcome: stream.Delivered, CampaignID: &id}}, nil
}

func (l *ledger) Search(_ context.Context, id string) (stream.Findings, error) {
	if id == "down" {
		return stream.Findings{}, errors.New("feedback database: connection refused")
	}
	list, err := l.Recent(context.Background())
	return stream.Findings{Campaign: list}, err
}

func (l *ledger) Explain(_ context.Context, trigger string, client *string) (stream.Explanation, error) {
	if trigger != "campaigns/0/1" {
		return stream.Explanation{}, fmt.Errorf("%s: %w", trigger, stream.ErrUnknownTrigger)
	}
	e := stream.Explanation{Trigger: trigger, Outcome: stream.Delivered}
	if client != nil {
		e.Client = &stream.ClientAnswer{ID: *client, Got: true}
	}
	return e, nil
}

func handler(t *testing.T, p *Page) http.Handler {
	t.Helper()
	mux := http.NewServeMux()
	if err := p.Routes(mux); err != nil {
		t.Fatal(err)
	}
	return mux
}

func ask(h http.Handler, method, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// Everything that the page needs is embedded, and its policy lets nothing else in.
func TestPageIsWholeAndLetsNothingElseIn(t *testing.T) {
	t.Parallel()
	p := newPage(t, config(newMeters()))
	h := handler(t, p)
	document := ask(h, http.MethodGet, "/")
	paths := regexp.MustCompile(`(?:src|href)="(/live/[^"]+)"`).FindAllStringSubmatch(document.Body.String(), -1)
	if len(paths) < 3 {
		t.Fatalf("the document names %d files", len(paths))
	}
	for _, a := range assets() {
		paths = append(paths, []string{"", a.path})
	}
	for _, path := range append(paths, []string{"", "/"}) {
		w := ask(h, http.MethodGet, path[1])
		policy := w.Header().Get("Content-Security-Policy")
		if w.Code != http.StatusOK || !strings.HasPrefix(policy, "default-src 'none'; script-src 'self';") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s: %d, %s", path[1], w.Code, policy)
		}
		text := w.Body.String()
		for _, outside := range regexp.MustCompile(`https?://[^"' )]+`).FindAllString(text, -1) {
			if outside != "http://www.w3.org/2000/svg" { // a name, which nobody asks
				t.Errorf("%s names %s", path[1], outside)
			}
		}
		for _, markup := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "onclick=", "style=\"", "<script>", "<style>"} {
			if strings.Contains(text, markup) {
				t.Errorf("%s has %s", path[1], markup)
			}
		}
	}
}

func TestPageOnlyReads(t *testing.T) {
	t.Parallel()
	cfg := config(newMeters())
	cfg.Manifest = &ledger{}
	h := handler(t, newPage(t, cfg))
	for _, path := range []string{"/", "/live/page.js", "/live/events", "/live/campaigns", "/live/search?q=x", "/live/explain?message=a/0/1"} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
			if w := ask(h, method, path); w.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", method, path, w.Code)
			}
		}
	}
	if w := ask(h, http.MethodHead, "/live/events"); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("HEAD of the events: %d", w.Code)
	}
}

func TestPageSpeaksTheBrowsersLanguage(t *testing.T) {
	t.Parallel()
	h := handler(t, newPage(t, config(newMeters())))
	for accept, want := range map[string]string{"": "en", "ru-RU,ru;q=0.9,en;q=0.8": "ru", "de,fr": "en", "en-GB": "en", "uk,ru;q=0.5": "ru", "\xff;;": "en"} {
		if w := ask(h, http.MethodGet, "/", "Accept-Language", accept); !strings.Contains(w.Body.String(), `<html lang="`+want+`">`) {
			t.Errorf("%q is not answered in %s", accept, want)
		}
	}
}

// Both languages have the same words, and the document no word that they lack.
func TestEveryWordIsInBothLanguages(t *testing.T) {
	t.Parallel()
	script, err := web.ReadFile("web/words.js")
	if err != nil {
		t.Fatal(err)
	}
	english, russian, ok := strings.Cut(string(script), "\n  ru: {")
	if !ok {
		t.Fatal("no Russian words")
	}
	russian, _, _ = strings.Cut(russian, "\n};")
	keys := func(text string) map[string]bool {
		found := map[string]bool{}
		for _, m := range regexp.MustCompile(`(?m)(?:^\s+|', |\], )(\w+): ['\[]`).FindAllStringSubmatch(text, -1) {
			found[m[1]] = true
		}
		return found
	}
	en, ru := keys(english), keys(russian)
	for key := range en {
		if !ru[key] {
			t.Errorf("%s is not in Russian", key)
		}
	}
	for key := range ru {
		if !en[key] {
			t.Errorf("%s is not in English", key)
		}
	}
	document, err := web.ReadFile("web/index.html")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`data-(?:word|label)="(\w+)"`).FindAllStringSubmatch(string(document), -1) {
		if !en[m[1]] {
			t.Errorf("the document's word %s is in no language", m[1])
		}
	}
	if len(en) < 80 {
		t.Errorf("only %d words were found", len(en))
	}
}

// Campaigns and clients are for this machine alone; everyone else is told why not.
func TestCampaignsAreForThisMachineAlone(t *testing.T) {
	t.Parallel()
	cfg := config(newMeters())
	l := &ledger{}
	cfg.Manifest, cfg.Private = l, func(*http.Request) bool { return false }
	h := handler(t, newPage(t, cfg))
	for _, path := range []string{"/live/campaigns", "/live/search?q=x", "/live/explain?message=campaigns/0/1&client=x"} {
		if w := ask(h, http.MethodGet, path); w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "127.0.0.1") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if l.asked != 0 {
		t.Error("the manifest was asked")
	}
}

func TestManifestAnswersAreJSONWhateverCampaignsHold(t *testing.T) {
	t.Parallel()
	cfg := config(newMeters())
	l := &ledger{}
	cfg.Manifest = l
	h := handler(t, newPage(t, cfg))
	for path, want := range map[string]int{
		"/live/campaigns": 200, "/live/search?q=" + url.QueryEscape(hostile): 200, "/live/search?q=": 400, "/live/search?q=down": 503,
		"/live/explain?message=campaigns/0/1": 200, "/live/explain?message=campaigns/0/2": 404, "/live/explain?message=x": 400,
		"/live/explain?message=campaigns/0/1&client=" + url.QueryEscape(hostile): 200, "/live/search?q=" + strings.Repeat("x", idLimit+1): 400,
	} {
		w := ask(h, http.MethodGet, path)
		header := w.Header()
		if w.Code != want || header.Get("Content-Type") != "application/json" || header.Get("X-Content-Type-Options") != "nosniff" ||
			header.Get("Cross-Origin-Resource-Policy") != "same-origin" || strings.ContainsAny(w.Body.String(), "<>") {
			t.Errorf("%.60s: %d, want %d: %s", path, w.Code, want, w.Body)
		}
	}
	before := l.asked
	for range 50 {
		ask(h, http.MethodGet, "/live/campaigns")
	}
	if n := l.asked - before; n > 5 {
		t.Errorf("50 viewers asked the manifest %d times", n)
	}
}

// Over a real connection: the format, more than the server's own limits, and no goroutine left.
func TestEventsAreStreamedBeyondTheServersLimits(t *testing.T) {
	t.Parallel()
	cfg := config(newMeters())
	cfg.Readiness = readiness{reasons: []string{hostile}}
	p := newPage(t, cfg)
	defer run(t, p)()
	ctx, stop := context.WithCancel(t.Context())
	server := httptest.NewUnstartedServer(handler(t, p))
	server.Config.ReadTimeout, server.Config.WriteTimeout = 500*time.Millisecond, 500*time.Millisecond
	server.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	server.Start()
	defer server.Close()
	response, err := server.Client().Get(server.URL + "/live/events")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if kind := response.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Errorf("content type %s", kind)
	}
	events := 0
	for lines := bufio.NewScanner(response.Body); events < 3 && lines.Scan(); {
		if data, ok := strings.CutPrefix(lines.Text(), "data: {"); ok {
			events++
			if strings.ContainsAny(data, "<>") {
				t.Errorf("markup in %s", data)
			}
		}
	}
	if events < 3 {
		t.Fatalf("%d events came", events)
	}
	stop() // the daemon ends
	if _, err := io.ReadAll(response.Body); err != nil {
		t.Errorf("the stream breaks off: %v", err)
	}
}
