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
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile) // at most answerLimit long
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
}
