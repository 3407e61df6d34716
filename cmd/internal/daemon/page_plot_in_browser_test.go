package daemon

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"example.com/tiffin/cmd/internal/livepage"
)

// seePoints: each point of the last 15 minutes with deliveries is drawn, at its time and on the logarithmic
// scale of its value; only neighbours are joined.
func seePoints(t *testing.T, b *browser, _ *world, _ *running) {
	const end = 1_800_000_000_000
	at := func(secondsAgo int64, p50, p99 float64, count uint64) livepage.Point {
		return livepage.Point{At: end - secondsAgo*1000, Quantiles: livepage.Quantiles{P50: p50, P99: p99, Count: count}}
	}
	points := []livepage.Point{at(900, .01, .1, 3), at(890, .01, 1, 5), at(600, 0, 0, 0), at(300, .002, .02, 1), at(0, .1, 10, 8)}
	server := httptest.NewServer(withHistory(t, points))
	defer func() { b.open("about:blank"); server.Close() }() // the stream of events is left first
	b.open(server.URL + "/")
	b.until(`document.querySelectorAll('#plot circle').length === 8`)
	for q, value := range map[string]func(livepage.Point) float64{"50": func(p livepage.Point) float64 { return p.P50 }, "99": func(p livepage.Point) float64 { return p.P99 }} {
		var want []string
		for _, p := range points {
			if p.Count > 0 { // 1 ms to 10 s stand between 118 and 12, 15 minutes between 64 and 1010
				want = append(want, fmt.Sprintf("%.1f,%.1f", 1010-float64(end-p.At)/900_000*946, 118-(math.Log10(value(p))+3)/4*106))
			}
		}
		var drawn struct {
			Dots    []string
			Line    string
			Visible bool
		}
		b.run(`const dots = [...document.querySelectorAll('#plot .dot' + arguments[0])], svg = document.getElementById('plot').getBoundingClientRect();
			return {Dots: dots.map((e) => e.getAttribute('cx') + ',' + e.getAttribute('cy')), Line: document.querySelector('#plot path.p' + arguments[0]).getAttribute('d'),
				Visible: dots.every((e) => { const r = e.getBoundingClientRect(); return r.width > 1 && r.left >= svg.left && r.right <= svg.right + 1 && r.top >= svg.top && r.bottom <= svg.bottom; })}`, &drawn, q)
		if !slices.Equal(drawn.Dots, want) || !drawn.Visible {
			t.Errorf("p%s: the dots are at %q, visible: %t; want %q", q, drawn.Dots, drawn.Visible, want)
		}
		if line := fmt.Sprintf("M%sL%sM%sM%s", want[0], want[1], want[2], want[3]); drawn.Line != line {
			t.Errorf("p%s: the line is %s, want %s", q, drawn.Line, line)
		}
	}
	if scale := b.text("#plot"); !strings.Contains(scale, "1 ms") || !strings.Contains(scale, "10 s") || !strings.Contains(scale, "15 min ago") {
		t.Errorf("the scale says %q", scale)
	}
	b.complaints() // there are no campaigns to ask for
}

// withHistory is a page whose stream of events tells these points and nothing else.
func withHistory(t *testing.T, points []livepage.Point) http.Handler {
	t.Helper()
	_, page := pageOf(t, newKnown())
	text, err := json.Marshal(points)
	if err != nil {
		t.Fatal(err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/live/events" {
			page.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = fmt.Fprintf(w, "event: history\ndata: %s\n\n", text)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
}
