package daemon

import (
	"fmt"
	"testing"
)

func useKeyboardOnASmallScreen(t *testing.T, b *browser, w *world, r *running) {
	defer b.screen(1100, 900)
	b.screen(375, 812)
	useKeyboard(t, b, w, r)
}

func useAPhone(t *testing.T, b *browser, _ *world, r *running) {
	defer b.screen(1100, 900)
	for _, width := range []int{360, 375} {
		b.screen(width, 740)
		for _, language := range []string{"en", "ru"} {
			seeOnAPhone(t, b, r, language, float64(width))
		}
	}
}

func seeOnAPhone(t *testing.T, b *browser, r *running, language string, width float64) {
	b.open(r.url + "/")
	b.until(`document.querySelectorAll('#recent li').length === 4`)
	b.run(`document.getElementById('language-' + arguments[0]).click()`, nil, language)
	b.run(`document.getElementById('query').value = 'ann'; document.getElementById('search').requestSubmit()`, nil)
	b.until(`document.querySelectorAll('#found-client li').length === 3`)
	fits := func(what string) {
		var saw struct{ Page, Screen, Dialog, Inside float64 }
		b.run(`const details = document.getElementById('details');
			return {Page: document.documentElement.scrollWidth, Screen: innerWidth, Dialog: details.scrollWidth, Inside: details.clientWidth}`, &saw)
		if saw.Screen != width || saw.Page > width || saw.Dialog > saw.Inside {
			t.Errorf("%s in %s: %+v", what, language, saw)
		}
		wordsAreWhole(t, b, fmt.Sprintf("%s in %s at %v", what, language, width))
	}
	fits("the page")
	for _, trigger := range []string{"campaigns/0/3", "campaigns/0/1"} { // the second is markup
		// Who closes one and opens the next at once gets an answer to the latter.
		b.run(`document.getElementById('details').close();
			[...document.querySelectorAll('#found-client li')].find((e) => e.querySelector('.name').textContent === arguments[0]).querySelector('button').click()`, nil, trigger)
		b.until(`document.getElementById('details-title').textContent === arguments[0] && document.getElementById('details-list').children.length > 5`, trigger)
		fits(trigger)
	}
	b.run(`document.getElementById('details').close()`, nil)
	b.run(`document.getElementById('language-en').click()`, nil)
}

// useWindows: between a phone and a large screen nothing is torn either.
func useWindows(t *testing.T, b *browser, _ *world, r *running) {
	defer b.screen(1100, 900)
	b.open(r.url + "/")
	for _, language := range []string{"ru", "en"} {
		b.run(`document.getElementById('language-' + arguments[0]).click()`, nil, language)
		b.until(`document.getElementById('sinks-agreement').textContent !== '–'`)
		for _, width := range []int{520, 660, 820, 1000, 1280, 1920} {
			b.screen(width, 900)
			b.until(`innerWidth === arguments[0]`, width)
			wordsAreWhole(t, b, fmt.Sprintf("%s at %d", language, width))
		}
	}
}

// torn are names of figures that are broken within a word, and positions in the log; and what stands
// beyond its card, or beyond its box in the picture of the flow.
const torn = `
	const found = [];
	const texts = [...document.querySelectorAll('dt, #details-list .position')].filter((e) => e.checkVisibility());
	for (const e of texts) for (let n of [...e.childNodes].map((c) => c.firstChild ?? c)) for (const m of n.textContent.matchAll(/[\p{L}\p{N}/]+/gu)) {
		const range = document.createRange();
		range.setStart(n, m.index); range.setEnd(n, m.index + m[0].length);
		if (new Set([...range.getClientRects()].map((r) => r.top)).size > 1) found.push(n.textContent);
	}
	const labels = [...document.querySelectorAll('#flow rect')].map((box) => [box, box.nextElementSibling]);
	for (const [box, text] of labels) {
		const outer = box.getBoundingClientRect(), inner = text.getBoundingClientRect();
		if (inner.left < outer.left + 2 || inner.right > outer.right - 2) found.push(text.textContent);
	}
	const since = document.getElementById('sinks-since'), was = since.textContent;
	since.textContent = '12/28/26, 12:58:58 PM'; // the longest
	for (const card of document.querySelectorAll('.cards section')) if (card.scrollWidth > card.clientWidth) found.push(card.textContent);
	since.textContent = was;
	return {Found: found, Texts: texts.length, Boxes: labels.length};`

func wordsAreWhole(t *testing.T, b *browser, what string) {
	t.Helper()
	var saw struct {
		Found        []string
		Texts, Boxes int
	}
	if b.run(torn, &saw); len(saw.Found) > 0 || saw.Texts < 25 || saw.Boxes != 8 {
		t.Errorf("%s: of %d texts and %d boxes these are torn: %q", what, saw.Texts, saw.Boxes, saw.Found)
	}
}
