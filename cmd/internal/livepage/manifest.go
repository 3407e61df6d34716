package livepage

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"example.com/tiffin/stream"
)

// Manifest answers what became of campaigns. It is called from several goroutines at once, each
// call with a deadline; its errors name no secret.
type Manifest interface {
	// Recent are the messages handled last, newest first.
	Recent(ctx context.Context) ([]stream.Explanation, error)
	// Search finds messages by the id of a campaign or of a client, newest first.
	Search(ctx context.Context, id string) (stream.Findings, error)
	// Explain tells of one message; its error wraps stream.ErrUnknownTrigger when there is none.
	Explain(ctx context.Context, trigger string, client *string) (stream.Explanation, error)
}

const (
	questionLimit = 10 * time.Second // of one question to the manifest
	idLimit       = 4096             // bytes of an id that is asked for
	recentEvery   = time.Second      // the newest campaigns are read at most so often, for all viewers
)

const (
	privateOnly = "campaigns and clients are shown to programs of this machine only: open the page on 127.0.0.1 or through a tunnel (ssh -L), without a proxy"
	noManifest  = "no manifest is wired to this page"
)

var errSlow = errors.New("too slow")

// private keeps what names campaigns and clients on this machine.
func (p *Page) private(handle http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		guard(w.Header())
		switch {
		case !p.cfg.Private(r):
			p.refuse(w, http.StatusForbidden, privateOnly)
		case p.cfg.Manifest == nil:
			p.refuse(w, http.StatusNotFound, noManifest)
		default:
			ctx, cancel := context.WithTimeout(r.Context(), questionLimit)
			defer cancel()
			handle(w, r.WithContext(ctx))
		}
	}
}

// campaigns tells the messages handled last.
func (p *Page) campaigns(w http.ResponseWriter, r *http.Request) {
	list, err := p.recent.ask(r.Context(), p.cfg.Manifest)
	p.reply(w, list, err)
}

func (p *Page) search(w http.ResponseWriter, r *http.Request) {
	id := r.URL.Query().Get("q")
	if id == "" || len(id) > idLimit {
		p.refuse(w, http.StatusBadRequest, "ask for the id of a campaign or a client: /live/search?q=ID")
		return
	}
	found, err := p.cfg.Manifest.Search(r.Context(), id)
	p.reply(w, found, err)
}

func (p *Page) explain(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	trigger := query.Get("message")
	if _, _, _, err := stream.ParseTrigger(trigger); err != nil || len(query.Get("client")) > idLimit {
		p.refuse(w, http.StatusBadRequest, "ask for a message: /live/explain?message=TOPIC/PARTITION/OFFSET, and &client=ID")
		return
	}
	var client *string
	if query.Has("client") {
		id := query.Get("client")
		client = &id
	}
	e, err := p.cfg.Manifest.Explain(r.Context(), trigger, client)
	p.reply(w, e, err)
}

// reply writes an answer of the manifest, or why there is none.
func (p *Page) reply(w http.ResponseWriter, answer any, err error) {
	switch {
	case errors.Is(err, stream.ErrUnknownTrigger):
		p.refuse(w, http.StatusNotFound, err.Error())
	case err != nil:
		p.refuse(w, http.StatusServiceUnavailable, err.Error())
	default:
		p.write(w, http.StatusOK, answer)
	}
}

func (p *Page) refuse(w http.ResponseWriter, status int, why string) {
	p.write(w, status, map[string]string{"error": why})
}

func (p *Page) write(w http.ResponseWriter, status int, answer any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		p.cfg.Log.Debug("page's question not answered", "err", err)
	}
}

// recent keeps the newest messages for a moment: the manifest is asked once for all viewers.
type recent struct {
	turn chan struct{} // whoever could send asks
	at   time.Time
	list []stream.Explanation
}

func (r *recent) ask(ctx context.Context, manifest Manifest) ([]stream.Explanation, error) {
	select {
	case r.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-r.turn }()
	if r.list != nil && time.Since(r.at) < recentEvery {
		return r.list, nil
	}
	list, err := manifest.Recent(ctx)
	if err != nil {
		return nil, err
	}
	r.list, r.at = append([]stream.Explanation{}, list...), time.Now()
	return r.list, nil
}
