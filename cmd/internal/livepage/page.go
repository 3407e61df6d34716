// Package livepage is the daemon's page for people: what it does now, and what became of each
// campaign. Everything that the page needs is embedded; it asks no other server.
//
// Its one rule: what others wrote (ids, reasons, errors) reaches the page as JSON and becomes text
// there, never markup: the page's policy refuses inline scripts and strings as markup.
//
// Run owns the goroutines that read the figures and compare the sinks, once for all viewers. The handlers run on
// goroutines of net/http; those of viewers end with their request's context.
package livepage

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/text/language"
)

// Readiness tells why the daemon is not ready; it is called from several goroutines at once, and
// must not wait.
type Readiness interface {
	Reasons() []string  // empty: ready
	Progress() []string // what takes its time, a line each
}

// Config is what a Page shows.
type Config struct {
	Readiness Readiness
	Gatherer  prometheus.Gatherer
	Version   string
	Log       *slog.Logger
	// Sinks tells how far both sinks are; nil for a page that does not say.
	Sinks Sinks
	// Manifest answers what became of campaigns; nil for none.
	Manifest Manifest
	// Private reports whether a request may see campaigns and clients.
	Private func(*http.Request) bool
}

// Page serves the page of one daemon.
type Page struct {
	cfg      Config
	document *template.Template
	board    *board
	recent   recent
}

//go:embed web
var web embed.FS

// asset is a file of the page.
type asset struct{ path, file, kind string }

func assets() []asset {
	return []asset{
		{"/live/page.js", "web/page.js", "text/javascript; charset=utf-8"},
		{"/live/flow.js", "web/flow.js", "text/javascript; charset=utf-8"},
		{"/live/plot.js", "web/plot.js", "text/javascript; charset=utf-8"},
		{"/live/campaigns.js", "web/campaigns.js", "text/javascript; charset=utf-8"},
		{"/live/words.js", "web/words.js", "text/javascript; charset=utf-8"},
		{"/live/style.css", "web/style.css", "text/css; charset=utf-8"},
		{"/live/icon.svg", "web/icon.svg", "image/svg+xml"},
	}
}

// New prepares a page; it starts nothing. Run must follow, or nobody sees a figure.
func New(cfg Config) (*Page, error) {
	if cfg.Readiness == nil || cfg.Gatherer == nil || cfg.Log == nil || cfg.Private == nil {
		return nil, errors.New("live page: readiness, gatherer, logger and a judge of requests are needed")
	}
	document, err := template.ParseFS(web, "web/index.html")
	if err != nil {
		return nil, fmt.Errorf("live page: %w", err)
	}
	return &Page{cfg: cfg, document: document, board: newBoard(cfg), recent: recent{turn: make(chan struct{}, 1)}}, nil
}

// Routes adds the page to a mux. Nothing but GET is answered.
func (p *Page) Routes(mux *http.ServeMux) error {
	mux.HandleFunc("GET /{$}", p.show)
	for _, a := range assets() {
		text, err := web.ReadFile(a.file)
		if err != nil {
			return fmt.Errorf("live page: %w", err)
		}
		mux.HandleFunc("GET "+a.path, func(w http.ResponseWriter, r *http.Request) {
			guard(w.Header())
			w.Header().Set("Content-Type", a.kind)
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(text))
		})
	}
	mux.HandleFunc("GET /live/events", p.events)
	mux.HandleFunc("GET /live/campaigns", p.private(p.campaigns))
	mux.HandleFunc("GET /live/search", p.private(p.search))
	mux.HandleFunc("GET /live/explain", p.private(p.explain))
	return nil
}

// policy lets the page load what this server serves and nothing else. Trusted types make a
// browser refuse any string that is to become markup or a script.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; " +
	"form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

func guard(header http.Header) {
	header.Set("Content-Security-Policy", policy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cache-Control", "no-store")
}

// show writes the document: in the reader's language, and with what programs without scripts can
// read of the daemon's state.
func (p *Page) show(w http.ResponseWriter, r *http.Request) {
	data := struct {
		Language, Version string
		Reasons, Progress []string
	}{languageOf(r), p.cfg.Version, p.cfg.Readiness.Reasons(), p.cfg.Readiness.Progress()}
	var text bytes.Buffer
	if err := p.document.Execute(&text, data); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	guard(w.Header())
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Vary", "Accept-Language")
	if _, err := text.WriteTo(w); err != nil {
		p.cfg.Log.Debug("page not answered", "err", err)
	}
}

// languageOf is the language that a browser asks for, of those that the page speaks.
func languageOf(r *http.Request) string {
	spoken := language.NewMatcher([]language.Tag{language.English, language.Russian})
	_, i := language.MatchStrings(spoken, r.Header.Get("Accept-Language"))
	return [...]string{"en", "ru"}[i]
}
