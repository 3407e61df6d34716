package httpd

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"example.com/tiffin/internal/checkup"
)

func listenVerdict(t *testing.T, listen string) checkup.Line {
	t.Helper()
	var told checkup.Line
	Examine(t.Context(), listen, checkup.NewSheet(func(l checkup.Line) { told = l }))
	return told
}

// A start ends where the address is taken; a daemon that has it already is no fault.
func TestDoctorSeesWhoHasTheAddress(t *testing.T) {
	t.Parallel()
	var ready reasons
	ready.set()
	s, err := Listen(t.Context(), config(&ready))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	if l := listenVerdict(t, s.Addr().String()); l.Verdict != checkup.OK || l.Check != "http.listen" {
		t.Errorf("a daemon: %+v", l)
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if l := listenVerdict(t, s.Addr().String()); l.Verdict != checkup.OK {
		t.Errorf("free again: %+v", l)
	}
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	for listen, want := range map[string]checkup.Verdict{other.Listener.Addr().String(): checkup.Fail, "192.0.2.1:9464": checkup.Fail, "": checkup.OK, "127.0.0.1:0": checkup.OK} {
		if l := listenVerdict(t, listen); l.Verdict != want || (l.Fix == "") == (want == checkup.Fail) {
			t.Errorf("%q: %+v, want %s", listen, l, want)
		}
	}
}
