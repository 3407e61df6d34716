package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

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
		{"a search by campaign or client", searchByID},
		{"every figure in its place", seeEveryFigure},
		{"the last 15 minutes as points", seePoints},
		{"the keyboard reaches the details", useKeyboard},
		{"the keyboard does on a small screen", useKeyboardOnASmallScreen},
		{"a phone has nothing beside the screen", useAPhone},
		{"windows of any width", useWindows},
		{"dark and light can be read", seeDarkAndLight},
		{"both languages", readBothLanguages},
		{"not of this machine", askFromElsewhere},
		{"what is wrong stands on top", seeWhatIsWrong},
		{"a daemon that ends is missed", missTheDaemon},
	} {
		t.Run(look.what, func(t *testing.T) {
			inner := *b
			inner.t = t
			look.at(t, &inner, w, r)
		})
	}
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
	readableInBoth(t, b, "behind")
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
	b.search("campaigns/0/3")
	b.until(`document.getElementById('details').open && document.getElementById('details-title').textContent === 'campaigns/0/3'`)
	b.until(`document.getElementById('details-list').textContent.includes('held') && document.getElementById('details-list').textContent.includes('delivered')`)
	b.keys(keyEscape)
	b.until(`!document.getElementById('details').open`)
	b.search("campaigns/0/99")
	b.until(`document.getElementById('details-state').textContent.startsWith('The manifest does not know this message')`)
	b.keys(keyEscape)
	b.until(`!document.getElementById('details').open`)
	b.complaints() // the browser notes an answer of 404
}

// search types into the field for it.
func (b *browser) search(what string) {
	b.t.Helper()
	b.run(`document.getElementById('query').value = ''; document.getElementById('query').focus()`, nil)
	b.keys(append(strings.Split(what, ""), keyEnter)...)
}

// searchByID goes from an id to what became of the message, and to why a client got it or not.
func searchByID(t *testing.T, b *browser, _ *world, r *running) {
	b.open(r.url + "/")
	b.until(`document.querySelectorAll('#recent li').length === 4`)
	found := func(campaign, client int) {
		b.until(`document.getElementById('search-state').textContent.startsWith(arguments[0] + ' by campaign, ' + arguments[1] + ' by client; ')`, campaign, client)
		b.until(`document.querySelectorAll('#found-campaign li').length === arguments[0] && document.querySelectorAll('#found-client li').length === arguments[1]`, campaign, client)
	}
	open := func(list, trigger, campaign string) {
		b.run(`[...document.querySelectorAll('#' + arguments[0] + ' li')].find((e) => e.querySelector('.name').textContent === arguments[1]).querySelector('button').click()`, nil, list, trigger)
		b.until(`document.getElementById('details').open && document.getElementById('details-title').textContent === arguments[0]`, trigger)
		b.until(`['outcomedelivered', 'recipients2', 'campaign' + arguments[0], 'restaurantr1'].every((row) => [...document.getElementById('details-list').children].some((e) => e.textContent === row))`, campaign)
	}
	ask := func(client, answer string) {
		b.run(`document.getElementById('client').value = arguments[0]; document.getElementById('ask').requestSubmit()`, nil, client)
		b.until(`document.getElementById('answer').textContent.startsWith(arguments[0])`, answer)
	}
	b.search("plain")
	found(1, 0)
	open("found-campaign", "campaigns/0/0", "plain")
	ask("zed", "zed did not get it: not subscribed")
	b.keys(keyEscape)
	b.search("ann")
	found(0, 3)
	open("found-client", "campaigns/0/3", "held")
	if who := b.value("client"); who != "ann" {
		t.Errorf("the explanation is asked for %q, and ann was searched", who)
	}
	ask("ann", "ann got it: it was subscribed")
	b.keys(keyEscape)
	b.search("nobody")
	found(0, 0)
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

// readable holds what is on the screen to WCAG's level AA, and returns the page's background.
func readable(t *testing.T, b *browser, what string) string {
	t.Helper()
	var found struct {
		Least       float64
		Where, Back string
	}
	b.run(contrast, &found)
	if found.Least < 4.5 {
		t.Errorf("%s: a contrast of %.2f in %s", what, found.Least, found.Where)
	}
	return found.Back
}

// readableInBoth holds it in dark and light.
func readableInBoth(t *testing.T, b *browser, what string) {
	t.Helper()
	for _, scheme := range []string{"dark", "light"} {
		b.scheme(scheme)
		readable(t, b, what+", "+scheme)
	}
}

func seeDarkAndLight(t *testing.T, b *browser, _ *world, r *running) {
	backs := map[string]string{}
	for _, scheme := range []string{"dark", "light"} {
		b.scheme(scheme)
		b.open(r.url + "/")
		b.until(`document.getElementById('state').textContent === 'ready' && document.querySelectorAll('#recent li').length === 4`)
		backs[scheme] = readable(t, b, scheme)
		b.run(`document.getElementById('query').value = 'ann'; document.getElementById('search').requestSubmit()`, nil)
		b.until(`document.querySelectorAll('#found-client li').length === 3`)
		readable(t, b, scheme+", found")
		b.run(`document.querySelector('#found-client button').click()`, nil)
		b.until(`document.getElementById('details-list').children.length > 5`)
		b.run(`document.getElementById('client').value = 'ann'; document.getElementById('ask').requestSubmit()`, nil)
		b.until(`document.getElementById('answer').textContent.startsWith('ann got it: ')`)
		readable(t, b, scheme+", details")
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
	b.until(`document.getElementById('flow-title').textContent === 'Поток'`)                         // the choice is kept
	b.until(`document.querySelector('#recent li:last-child .many')?.textContent === '2 получателя'`) // r1's
	wordsAreWhole(t, b, "ru, wide")
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

func seeWhatIsWrong(t *testing.T, b *browser, w *world, r *running) {
	b.open(r.url + "/")
	w.db.Exec(t, "ALTER TABLE subscribers_restaurants RENAME client_id TO client")
	b.until(`document.getElementById('state').textContent === 'not ready' && document.getElementById('reasons').textContent.includes('client_id')`)
	readableInBoth(t, b, "not ready")
	w.db.Exec(t, "ALTER TABLE subscribers_restaurants RENAME client TO client_id")
	b.until(`document.getElementById('state').textContent === 'ready' && document.getElementById('reasons').textContent === ''`)
}

func missTheDaemon(t *testing.T, b *browser, _ *world, r *running) {
	b.open(r.url + "/")
	b.until(`document.getElementById('state').textContent === 'ready'`)
	r.stop()
	if err := r.end(t); err != nil {
		t.Error(err)
	}
	b.until(`document.getElementById('state').textContent === 'no connection, trying again'`)
	readableInBoth(t, b, "no connection")
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
	b.screen(1280, 900)
	b.open(url)
	b.until(`document.getElementById('state').textContent === 'ready' && document.querySelectorAll('#flow .flowing').length >= 5 && document.querySelectorAll('#plot circle').length > 2`)
	b.until(`document.querySelectorAll('#recent li').length > 3`)
	// All of the page, but of its list the newest only.
	b.run(`const style = new CSSStyleSheet(); style.replaceSync('#recent li:nth-child(n+6) { display: none }'); document.adoptedStyleSheets = [style]`, nil)
	var height float64
	b.run(`return document.documentElement.scrollHeight`, &height)
	b.screen(1280, int(height))
	b.until(`document.documentElement.scrollHeight <= innerHeight`)
	if err := os.WriteFile("../../../docs/page.png", b.picture(), 0o600); err != nil {
		t.Fatal(err)
	}
}
