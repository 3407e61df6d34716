package livepage

import (
	"net/http"
	"time"
)

// eventLimit bounds how long a viewer may take to receive one event.
const eventLimit = 5 * time.Second

// events streams the figures to one viewer until it leaves, is too slow or the daemon ends.
func (p *Page) events(w http.ResponseWriter, r *http.Request) {
	guard(w.Header())
	if r.Method != http.MethodGet { // the mux lets HEAD pass, which has no end to wait for
		w.Header().Set("Allow", http.MethodGet)
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	v, err := p.board.join()
	if err != nil {
		w.Header().Set("Retry-After", "10")
		p.refuse(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	defer p.board.leave(v)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would gather events
	if err := send(w, r, v); err != nil {
		p.cfg.Log.Debug("a viewer of the page is gone", "err", err)
	}
}

func send(w http.ResponseWriter, r *http.Request, v *viewer) error {
	control := http.NewResponseController(w)
	if _, err := w.Write([]byte("retry: 2000\n\n")); err != nil {
		return err
	}
	for {
		select {
		case <-r.Context().Done():
			return nil
		case event, ok := <-v.events:
			if !ok {
				return errSlow
			}
			if err := control.SetWriteDeadline(time.Now().Add(eventLimit)); err != nil {
				return err
			}
			if _, err := w.Write(event); err != nil {
				return err
			}
			if err := control.Flush(); err != nil {
				return err
			}
		}
	}
}
