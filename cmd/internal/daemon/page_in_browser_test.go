package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/cmd/internal/livepage"
	"example.com/tiffin/internal/devstack"
)

// markup would run, were it ever taken for markup: in an element, an attribute or a script.
const markup = `"><img src=x onerror="window.ran=1"></script><script>window.ran=1</script><svg onload=window.ran=1>` + "\u202e'"

func (w *world) publishCampaign(t *testing.T, values ...[]byte) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(w.broker.Brokers()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, value := range values {
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "campaigns", Value: value}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

func campaignOf(restaurant, id string) []byte {
	return devstack.Campaign{
		Restaurant: restaurant, ID: id, Content: markup, Owner: markup, OwnerContact: markup, Start: 0, End: 99999999999, Created: 1,
	}.JSON()
}

// TestPageInABrowser looks at the page of a daemon at work as people do.
func TestPageInABrowser(t *testing.T) {
	t.Parallel()
	b := openBrowser(t)
	w := newWorld(t)
	w.db.Exec(t, "INSERT INTO subscribers_restaurants (client_id, restaurant_id) VALUES ('ann', $hostile$"+markup+"$hostile$)")
	r := start(t, w.environ, nil)
	r.waitReady(t)
	for _, look := range []struct {
		what string
		at   func(*testing.T, *browser, *world, *running)
	}{
		{"figures change with a campaign", seeFigures},
		{"markup is shown as text and runs nothing", seeMarkupAsText},
		{"one sink ahead of the other", seeSinksApart},
		{"a search by offset", searchByOffset},
		{"every figure in its place", seeEveryFigure},
		{"the keyboard reaches the details", useKeyboard},
		{"a phone has nothing beside the screen", useAPhone},
		{"dark and light can be read", seeDarkAndLight},
		{"both languages", readBothLanguages},
		{"not of this machine", askFromElsewhere},
		{"a daemon that ends is missed", missTheDaemon},
	} {
		t.Run(look.what, func(t *testing.T) {
			inner := *b
			inner.t = t
			look.at(t, &inner, w, r)
		})
	}
}

func seeFigures(t *testing.T, b *browser, w *world, r *running) {
	b.screen(1100, 900)
	b.open(r.url + "/")
	b.until(`document.getElementById('state').textContent === 'ready'`)
	b.until(`document.getElementById('sinks-deliveries').textContent === '0' && document.getElementById('recent-state').textContent === 'None yet.'`)
	w.db.Exec(t, "UPDATE subscribers_restaurants SET client_id = client_id WHERE restaurant_id = 'r2'") // for a time from commit to visible
	w.publishCampaign(t, campaignOf("r1", "plain"))
	b.until(`document.getElementById('sinks-deliveries').textContent === '2' && document.getElementById('index-subscriptions').textContent === '4'`)
	b.until(`document.querySelectorAll('#recent li').length === 1 && document.querySelector('#recent .id').textContent === 'plain'`)
	b.until(`document.querySelectorAll('#flow .flowing').length >= 4`)
	b.until(`/^[0-9.,]+ (µs|ms|s)$/.test(document.getElementById('delivery-p99').textContent) && document.querySelectorAll('#plot circle').length >= 2`)
	if alt := b.text("#flow-text"); !strings.Contains(alt, "fence and join → topic of deliveries: ") {
		t.Errorf("the picture in words: %q", alt)
	}
	b.showsMetrics(func() samples { return read(t, r.metrics(t)) })
	if c := b.complaints(); len(c) != 0 {
		t.Errorf("the browser complains: %q", c)
	}
}

// samples are metrics by their names.
type samples map[string]*dto.MetricFamily

func read(t *testing.T, text string) samples {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// sum adds up a counter or gauge, of the label's value where one is given. One that is missing is no number.
func (s samples) sum(name string, label ...string) float64 {
	sum := math.NaN()
	for _, m := range s[name].GetMetric() {
		if len(label) > 0 && m.GetLabel()[0].GetValue() != label[0] {
			continue
		}
		if math.IsNaN(sum) {
			sum = 0
		}
		sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	return sum
}

// quantile is that of Prometheus' histogram_quantile, as the page writes it.
func (s samples) quantile(name string, q float64) string {
	if len(s[name].GetMetric()) != 1 {
		return "no metric"
	}
	h := s[name].GetMetric()[0].GetHistogram()
	lower, before, rank := 0.0, 0.0, q*float64(h.GetSampleCount())
	for _, b := range h.GetBucket() {
		upper, at := b.GetUpperBound(), float64(b.GetCumulativeCount())
		if rank > 0 && at >= rank {
			return span(lower + (upper-lower)*(rank-before)/(at-before))
		}
		lower, before = upper, at
	}
	return "–"
}

// figures are the texts of the page's elements.
func (s samples) figures() map[string]string {
	filled := s.sum("tiffin_index_lookups_total", "filled")
	memory := s.sum("tiffin_index_lookups_total", "resident") + s.sum("tiffin_index_lookups_total", "empty")
	retained, limit := s.sum("tiffin_slot_retained_bytes"), s.sum("tiffin_slot_retained_limit_bytes")
	return map[string]string{
		"delivery-p50": s.quantile("tiffin_delivery_seconds", .5), "delivery-p99": s.quantile("tiffin_delivery_seconds", .99),
		"delivery-count": number(float64(s["tiffin_delivery_seconds"].GetMetric()[0].GetHistogram().GetSampleCount()), 0),
		"visible-p50":    s.quantile("tiffin_cdc_visible_seconds", .5), "visible-p99": s.quantile("tiffin_cdc_visible_seconds", .99),
		"fence-p50": s.quantile("tiffin_fence_seconds", .5), "fence-p99": s.quantile("tiffin_fence_seconds", .99),
		"index-subscriptions": number(s.sum("tiffin_index_subscriptions"), 0), "index-restaurants": number(s.sum("tiffin_index_restaurants"), 0),
		"index-bytes": size(s.sum("tiffin_index_bytes")), "index-hits": number(memory/(memory+filled)*100, 1) + " %", "index-filled": number(filled, 0),
		"slot-lag": size(s.sum("tiffin_cdc_lag_bytes")), "slot-retained": size(retained), "slot-limit": size(limit),
		"slot-rebuilds": number(s.sum("tiffin_rebuilds_total"), 0), "slot-meter": fmt.Sprintf("%.4f", retained/limit),
		"sinks-deliveries": number(s.sum("tiffin_deliveries_total"), 0), "sinks-recovered": number(s.sum("tiffin_recovered_deliveries_total"), 0),
		"sinks-postgres": number(s.sum("tiffin_sink_retries_total", "postgres"), 0), "sinks-kafka": number(s.sum("tiffin_sink_retries_total", "kafka"), 0),
		"sinks-dead": number(s.sum("tiffin_dead_letters_total"), 0),
	}
}

// number, size and span write as the page does in English.
func number(value float64, digits int) string {
	unit := math.Pow10(digits)
	return humanize.Commaf(math.Round(value*unit) / unit)
}

func size(bytes float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	for ; bytes >= 1024 && len(units) > 1; units = units[1:] {
		bytes /= 1024
	}
	if bytes < 10 && units[0] != "B" {
		return number(bytes, 1) + " " + units[0]
	}
	return number(bytes, 0) + " " + units[0]
}

func span(seconds float64) string {
	unit := "s"
	switch {
	case seconds < 1e-3:
		seconds, unit = seconds*1e6, "µs"
	case seconds < 1:
		seconds, unit = seconds*1e3, "ms"
	}
	digits := 0
	switch {
	case seconds < 10:
		digits = 2
	case seconds < 100:
		digits = 1
	}
	return number(seconds, digits) + " " + unit
}

// showsMetrics waits until each of the page's figures has been what the metrics said at that moment:
// some of a daemon's change by themselves. The sinks' agreement is no metric.
func (b *browser) showsMetrics(now func() samples) {
	b.t.Helper()
	const all = `return Object.fromEntries([...document.querySelectorAll('.cards dd, .cards meter')]
		.map((e) => [e.id, e.value?.toFixed(4) ?? e.textContent]).filter(([id]) => !/^sinks-(agreement|since|ledger|group|owed)$/.test(id)))`
	seen := map[string]bool{}
	shown, told := map[string]string{}, map[string]string{}
	for end := time.Now().Add(patience / 3); time.Now().Before(end); {
		clear(shown)
		b.run(all, &shown)
		told = now().figures()
		for id, text := range shown {
			seen[id] = seen[id] || told[id] == text
		}
		if !slices.Contains(slices.Collect(maps.Values(seen)), false) && len(seen) == len(told) {
			return
		}
	}
	b.t.Errorf("the page shows %v\nthe metrics say %v", shown, told)
}

// calm is the readiness of a daemon that lacks nothing.
type calm struct{}

func (calm) Reasons() []string  { return nil }
func (calm) Progress() []string { return nil }

// known are metrics of which no two are alike, and what the page was given last.
type known struct {
	*prometheus.Registry
	last atomic.Pointer[samples]
}

func (k *known) Gather() ([]*dto.MetricFamily, error) {
	families, err := k.Registry.Gather()
	given := samples{}
	for _, f := range families {
		given[f.GetName()] = f
	}
	k.last.Store(&given)
	return families, err
}

func newKnown() *known {
	k, begin := &known{Registry: prometheus.NewRegistry()}, time.Now()
	for _, m := range []struct {
		name, label  string
		number, rate float64
	}{
		{"tiffin_cdc_changes_total", "", 0, 11},
		{"tiffin_cdc_transactions_total", "", 0, 12},
		{"tiffin_campaigns_total", "", 0, 14},
		{"tiffin_index_lookups_total", "resident", 4e9, 13},
		{"tiffin_index_lookups_total", "empty", 2e9, 0},
		{"tiffin_index_lookups_total", "filled", 3e9, 0},
		{"tiffin_deliveries_total", "", 5e6, 15},
		{"tiffin_dead_letters_total", "", 6e6, 16},
		{"tiffin_recovered_deliveries_total", "", 101, 0},
		{"tiffin_sink_retries_total", "postgres", 102, 0},
		{"tiffin_sink_retries_total", "kafka", 103, 0},
		{"tiffin_rebuilds_total", "", 104, 0},
		{"tiffin_index_subscriptions", "", 1e6, 0},
		{"tiffin_index_restaurants", "", 2e6, 0},
		{"tiffin_index_bytes", "", 3 << 20, 0},
		{"tiffin_cdc_lag_bytes", "", 4 << 20, 0},
		{"tiffin_slot_retained_bytes", "", 5 << 20, 0},
		{"tiffin_slot_retained_limit_bytes", "", 7 << 20, 0},
	} {
		o := prometheus.CounterOpts{Name: m.name}
		if m.label != "" {
			o.ConstLabels = prometheus.Labels{"of": m.label}
		}
		k.MustRegister(prometheus.NewCounterFunc(o, func() float64 { return m.number + m.rate*time.Since(begin).Seconds() }))
	}
	for name, second := range map[string]float64{"tiffin_delivery_seconds": 1, "tiffin_cdc_visible_seconds": 0.01, "tiffin_fence_seconds": 1e-4} {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Buckets: []float64{2e-5, 2e-4, 2e-3, 2e-2, 2e-1, 2}})
		h.Observe(second)
		k.MustRegister(h)
	}
	return k
}

// seeEveryFigure: where a daemon shows many zeroes, two that were mixed up would look the same.
func seeEveryFigure(t *testing.T, b *browser, _ *world, _ *running) {
	k := newKnown()
	p, err := livepage.New(livepage.Config{Readiness: calm{}, Gatherer: k, Log: slog.New(slog.DiscardHandler), Private: func(*http.Request) bool { return true }})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	if err := p.Routes(mux); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(mux)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); p.Run(ctx) }()
	defer func() { b.open("about:blank"); server.Close(); stop(); <-ended }() // the stream of events is left first
	b.open(server.URL + "/")
	b.until(`document.getElementById('state').textContent === 'ready'`)
	b.showsMetrics(func() samples { return *k.last.Load() })
	b.until(`document.getElementById('flow-text').textContent === arguments[0]`, strings.Join([]string{
		"subscribers’ table → write-ahead log: 11 changes/s", "write-ahead log → index: 12 transactions/s", "index → fence and join: 13 lookups/s",
		"topic of campaigns → fence and join: 14 campaigns/s", "fence and join → feedback table: 15 deliveries/s",
		"fence and join → topic of deliveries: 15 deliveries/s", "fence and join → dead letters: 16 letters/s",
	}, "; "))
	b.complaints() // there are no campaigns to ask for
}

func seeMarkupAsText(t *testing.T, b *browser, w *world, _ *running) {
	w.publishCampaign(t, campaignOf(markup, markup), []byte(`{"restaurant_id":"`+strings.ReplaceAll(markup, `"`, `\"`)+`","<b>":1}`))
	b.until(`[...document.querySelectorAll('#recent .id')].some((e) => e.textContent === arguments[0])`, markup)
	b.until(`document.querySelectorAll('#recent .malformed').length === 1`)
	b.run(`[...document.querySelectorAll('#recent li')].find((e) => e.querySelector('.id').textContent === arguments[0]).querySelector('button').click()`, nil, markup)
	b.until(`document.getElementById('details-list').textContent.split(arguments[0]).length === 3`, markup) // campaign and restaurant
	b.run(`document.getElementById('client').value = arguments[0]; document.getElementById('ask').requestSubmit()`, nil, markup)
	b.until(`document.getElementById('answer').textContent.startsWith(arguments[0] + ' did not get it: ')`, markup)
	b.run(`document.getElementById('details').close(); document.getElementById('query').value = arguments[0]; document.getElementById('search').requestSubmit()`, nil, markup)
	b.until(`document.querySelector('#found-campaign .id')?.textContent === arguments[0]`, markup)
	b.run(`document.getElementById('query').value = 'ann'; document.getElementById('search').requestSubmit()`, nil)
	b.until(`document.querySelectorAll('#found-client li').length === 2 && document.querySelectorAll('#found-campaign li').length === 0`)
	var grown struct{ Ran, Images, Scripts int }
	b.run(`return {Ran: window.ran ?? 0, Images: document.images.length, Scripts: document.scripts.length}`, &grown)
	if grown.Ran != 0 || grown.Images != 0 || grown.Scripts != 1 {
		t.Errorf("markup was taken for markup: %+v", grown)
	}
	if c := b.complaints(); len(c) != 0 {
		t.Errorf("the browser complains: %q", c)
	}
	// And if the page ever tried, the policy would refuse.
	var refused bool
	b.run(`try { document.createElement('p').innerHTML = '<b>'; return false } catch { return true }`, &refused)
	if !refused {
		t.Error("the page may turn strings into markup")
	}
	b.complaints()
}

// seeSinksApart looks between the two commits, and after them.
func seeSinksApart(t *testing.T, b *browser, w *world, r *running) {
	b.open(r.url + "/")
	b.until(`document.getElementById('sinks-agreement').textContent === 'level' && document.getElementById('sinks-owed').textContent === '0'`)
	if since, asked := b.text("#sinks-since"), b.text("#sinks-apart"); !strings.Contains(since, ":") || asked != "" {
		t.Errorf("level since %q, apart %q", since, asked)
	}
	before := b.text("#sinks-ledger")
	release := w.broker.HoldCommits()
	defer release()
	w.publishCampaign(t, campaignOf("r1", "held"))
	b.until(`document.getElementById('sinks-agreement').textContent === 'behind' && document.getElementById('sinks-owed').textContent === '2'`)
	if apart := b.text("#sinks-apart"); !strings.HasPrefix(apart, "partition 0: ledger 4, group 3, 2 records owed, since ") {
		t.Errorf("apart: %q", apart)
	}
	if ledger, group := b.text("#sinks-ledger"), b.text("#sinks-group"); group != before || ledger == before {
		t.Errorf("ledger %s, group %s, both before %s", ledger, group, before)
	}
	// Of the campaign nobody says that it is delivered, until it is.
	const listed = `[...document.querySelectorAll('#recent li')].find((e) => e.querySelector('.id').textContent === 'held')?.textContent`
	b.until(listed + `?.startsWith('under way: 0 of 2 sent')`)
	b.run(`document.querySelector('#recent li button').click()`, nil)
	b.until(`document.getElementById('details-list').textContent.includes('under way: 0 of 2 sent')`)
	b.run(`document.getElementById('client').value = 'ann'; document.getElementById('ask').requestSubmit()`, nil)
	b.until(`document.getElementById('answer').textContent.startsWith('ann is among its recipients: ')`)
	release()
	b.until(listed + `.startsWith('delivered')`)
	b.run(`document.getElementById('details').close()`, nil)
	b.until(`document.getElementById('sinks-agreement').textContent === 'level' && document.getElementById('sinks-group').textContent === '4' && document.getElementById('sinks-apart').textContent === ''`)
}

// searchByOffset types as a reader does.
func searchByOffset(t *testing.T, b *browser, _ *world, r *running) {
	b.open(r.url + "/")
	b.until(`document.querySelectorAll('#recent li').length === 4`)
	search := func(what string) {
		b.run(`document.getElementById('query').value = ''; document.getElementById('query').focus()`, nil)
		b.keys(append(strings.Split(what, ""), keyEnter)...)
	}
	search("campaigns/0/3")
	b.until(`document.getElementById('details').open && document.getElementById('details-title').textContent === 'campaigns/0/3'`)
	b.until(`document.getElementById('details-list').textContent.includes('held') && document.getElementById('details-list').textContent.includes('delivered')`)
	b.keys(keyEscape)
	b.until(`!document.getElementById('details').open`)
	search("campaigns/0/99")
	b.until(`document.getElementById('details-state').textContent.startsWith('The manifest does not know this message')`)
	b.keys(keyEscape)
	b.until(`!document.getElementById('details').open`)
	b.complaints() // the browser notes an answer of 404
}

func useKeyboard(t *testing.T, b *browser, _ *world, r *running) {
	b.open(r.url + "/")
	b.until(`document.querySelectorAll('#recent li').length === 4`)
	var order []string
	for range 12 {
		b.keys(keyTab)
		var focus struct {
			Name    string
			Visible bool
		}
		b.run(`const e = document.activeElement, s = getComputedStyle(e);
			return {Name: e.closest('#recent') ? 'message' : e.id || e.className || e.textContent, Visible: s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2}`, &focus)
		if !focus.Visible {
			t.Errorf("one does not see the focus on %s", focus.Name)
		}
		if order = append(order, focus.Name); focus.Name == "message" {
			break
		}
	}
	if got := strings.Join(order, " "); got != "skip language-en language-ru query Search message" {
		t.Fatalf("the order of the focus: %s", got)
	}
	b.keys(keyTab, keyTab, keyTab) // the oldest: r1's
	b.keys(keyEnter)
	b.until(`document.getElementById('details').open && document.getElementById('details-list').textContent.includes('plain')`)
	for range 3 {
		b.keys(keyTab)
		var id string
		if b.run(`return document.activeElement.id`, &id); id == "client" {
			break
		}
	}
	b.keys("a", "n", "n", keyEnter)
	b.until(`document.getElementById('answer').textContent.startsWith('ann got it: it was subscribed')`)
	b.keys(keyEscape)
	b.until(`!document.getElementById('details').open && document.activeElement.closest('#recent li:last-child') !== null`)
}

func useAPhone(t *testing.T, b *browser, _ *world, r *running) {
	defer b.screen(1100, 900)
	b.screen(360, 740)
	for _, language := range []string{"en", "ru"} {
		b.open(r.url + "/")
		b.until(`document.querySelectorAll('#recent li').length === 4`)
		b.run(`document.getElementById('language-' + arguments[0]).click()`, nil, language)
		b.run(`document.getElementById('query').value = 'ann'; document.getElementById('search').requestSubmit()`, nil)
		b.until(`document.querySelectorAll('#found-client li').length === 3`)
		for _, dialog := range []bool{false, true} {
			if dialog {
				b.run(`document.querySelector('#found-client button').click()`, nil)
				b.until(`document.getElementById('details-list').children.length > 5`)
			}
			var width struct{ Page, Dialog, Screen float64 }
			b.run(`return {Page: document.documentElement.scrollWidth, Dialog: document.getElementById('details').scrollWidth, Screen: innerWidth}`, &width)
			if width.Screen != 360 || width.Page > 360 || width.Dialog > 360 {
				t.Errorf("%s, dialog %t: %+v", language, dialog, width)
			}
		}
		b.run(`document.getElementById('details').close(); document.getElementById('language-en').click()`, nil)
	}
}

// contrast is the least ratio of text to background among the elements with text (WCAG 2, 1.4.3).
const contrast = `
	const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
		.reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
	const parts = (text) => text.match(/[\d.]+/g).map(Number);
	const back = (e) => { for (; e; e = e.parentElement) { const c = parts(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
	let least = 99, where = '';
	for (const e of document.querySelectorAll('body *')) {
		if (!e.checkVisibility() || ![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
		const text = e.closest('svg') ? getComputedStyle(e).fill : getComputedStyle(e).color;
		const [a, b] = [light(parts(text)), light(back(e))].sort((x, y) => y - x);
		if ((a + .05) / (b + .05) < least) { least = (a + .05) / (b + .05); where = e.outerHTML.slice(0, 80); }
	}
	return {Least: least, Where: where, Back: getComputedStyle(document.documentElement).backgroundColor};`

func seeDarkAndLight(t *testing.T, b *browser, _ *world, r *running) {
	backs := map[string]string{}
	for _, scheme := range []string{"dark", "light"} {
		b.scheme(scheme)
		b.open(r.url + "/")
		b.until(`document.getElementById('state').textContent === 'ready' && document.querySelectorAll('#recent li').length === 4`)
		var found struct {
			Least       float64
			Where, Back string
		}
		b.run(contrast, &found)
		if found.Least < 4.5 {
			t.Errorf("%s: a contrast of %.2f in %s", scheme, found.Least, found.Where)
		}
		backs[scheme] = found.Back
	}
	if backs["dark"] == backs["light"] {
		t.Errorf("dark and light are the same: %v", backs)
	}
}

func readBothLanguages(t *testing.T, b *browser, _ *world, r *running) {
	b.run(`localStorage.clear()`, nil)
	for _, c := range []struct{ accept, title, ready string }{{"ru-RU,ru", "Поток", "готов"}, {"en-US,en", "The flow", "ready"}, {"fr", "The flow", "ready"}} {
		b.headers(map[string]string{"Accept-Language": c.accept})
		b.open(r.url + "/")
		b.until(`document.getElementById('state').textContent === arguments[0] && document.getElementById('flow-title').textContent === arguments[1]`, c.ready, c.title)
	}
	b.run(`document.getElementById('language-ru').click()`, nil)
	b.until(`document.documentElement.lang === 'ru' && document.getElementById('state').textContent === 'готов' && document.querySelector('#recent .delivered')?.textContent === 'доставлена'`)
	b.open(r.url + "/")
	b.until(`document.getElementById('flow-title').textContent === 'Поток'`) // the choice is kept
	if left := b.text("main"); strings.Contains(left, "recipients") || strings.Contains(left, "Campaign") {
		t.Errorf("English is left in Russian: %s", left)
	}
	b.run(`document.getElementById('language-en').click()`, nil)
	b.headers(map[string]string{})
	takePicture(t, b)
}

// takePicture keeps what is on the screen, for people to look at, where it is asked for.
func takePicture(t *testing.T, b *browser) {
	t.Helper()
	dir := os.Getenv("PAGE_PICTURES")
	if dir == "" {
		return
	}
	for _, scheme := range []string{"dark", "light"} {
		b.scheme(scheme)
		for _, width := range []int{1100, 360} {
			b.screen(width, 1400)
			name := filepath.Join(dir, fmt.Sprintf("page-%s-%d.png", scheme, width))
			if err := os.WriteFile(name, b.picture(), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.screen(1100, 900)
}

func askFromElsewhere(t *testing.T, b *browser, _ *world, r *running) {
	b.headers(map[string]string{"X-Forwarded-For": "192.0.2.1"})
	defer b.headers(map[string]string{})
	b.open(r.url + "/")
	b.until(`document.getElementById('state').textContent === 'ready' && document.getElementById('recent-state').textContent.includes('this machine only')`)
	if n := b.text("#recent"); n != "" {
		t.Errorf("campaigns were told: %s", n)
	}
}

func missTheDaemon(t *testing.T, b *browser, _ *world, r *running) {
	b.open(r.url + "/")
	b.until(`document.getElementById('state').textContent === 'ready'`)
	r.stop()
	if err := r.end(t); err != nil {
		t.Error(err)
	}
	b.until(`document.getElementById('state').textContent === 'no connection, trying again'`)
}

// TestPictureOfARunningDaemon makes docs/page.png of a daemon that somebody started, best the demo's
// after some minutes: PAGE_URL=http://127.0.0.1:PORT/ go test ./cmd/internal/daemon -run TestPictureOfARunningDaemon.
func TestPictureOfARunningDaemon(t *testing.T) {
	t.Parallel()
	url := os.Getenv("PAGE_URL")
	if url == "" {
		t.Skip("PAGE_URL names no daemon to take a picture of")
	}
	b := openBrowser(t)
	b.scheme("light")
	b.screen(1000, 1250)
	b.open(url)
	b.until(`document.getElementById('state').textContent === 'ready' && document.querySelectorAll('#flow .flowing').length >= 5 && document.querySelectorAll('#plot circle').length > 2`)
	if err := os.WriteFile("../../../docs/page.png", b.picture(), 0o600); err != nil {
		t.Fatal(err)
	}
}
