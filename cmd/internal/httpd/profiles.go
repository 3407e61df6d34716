package httpd

import (
	"net"
	"net/http"
	"net/http/pprof"
)

// profiles adds Go's profiles (net/http/pprof) where only this machine can ask for them: a profile
// costs CPU time, and stacks tell more than a network needs to know.
func (s *Server) profiles(mux *http.ServeMux) {
	if at, ok := s.Addr().(*net.TCPAddr); !ok || !at.IP.IsLoopback() {
		return
	}
	guarded := func(profile http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if !private(r) {
				http.Error(w, "profiles are for programs of this machine: ask 127.0.0.1 or localhost, without a proxy", http.StatusForbidden)
				return
			}
			profile(w, r)
		}
	}
	mux.HandleFunc("GET /debug/pprof/", guarded(pprof.Index))
	mux.HandleFunc("GET /debug/pprof/profile", guarded(pprof.Profile)) // at most answerLimit long
	mux.HandleFunc("GET /debug/pprof/trace", guarded(pprof.Trace))
}
