package report

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"slices"
	"strings"

	"example.com/tiffin/cmd/bench/internal/harness"
)

// The drawings' sizes, in pixels.
const (
	chartWidth  = 860
	labelWidth  = 250
	barHeight   = 18
	plotHeight  = 260
	plotLeft    = 80
	plotTop     = 14
	plotBottom  = 44
	valueMargin = 215 // for the number behind the longest bar
)

// colours can be told apart by the colour-blind (Okabe and Ito, "Color Universal Design").
func colour(i int) string {
	palette := [...]string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"}
	return palette[i%len(palette)]
}

// drawing is SVG text under construction.
type drawing struct {
	strings.Builder
	height float64
}

func (d *drawing) add(format string, args ...any) { fmt.Fprintf(&d.Builder, format, args...) }

func (d *drawing) text(x, y float64, anchor, class, text string) {
	d.add(`<text x="%.1f" y="%.1f" text-anchor="%s" class="%s">%s</text>`, x, y, anchor, class, html.EscapeString(text))
}

func (d *drawing) svg(title string) template.HTML {
	return template.HTML(fmt.Sprintf(`<svg viewBox="0 0 %d %.0f" role="img" aria-label="%s" xmlns="http://www.w3.org/2000/svg">%s</svg>`, //nolint:gosec // every text in it was escaped
		chartWidth, d.height, html.EscapeString(title), d.String()))
}

// bars shows rates beside their limits: one bar for whoever was measured, a line where the limit is.
func bars(summaries []harness.Summary) template.HTML {
	var most float64
	var shown []harness.Summary
	who := map[string]int{}
	for _, s := range summaries {
		if s.Unit != harness.PerSecond || s.Limit == 0 {
			continue
		}
		shown = append(shown, s)
		most = max(most, s.Most, s.Limit)
		if _, ok := who[s.Who]; !ok {
			who[s.Who] = len(who)
		}
	}
	if len(shown) == 0 {
		return ""
	}
	d := &drawing{height: 8}
	scale := (chartWidth - labelWidth - valueMargin) / most
	last := ""
	for _, s := range shown {
		if s.Case != last && last != "" {
			d.height += 8
		}
		last = s.Case
		y := d.height
		d.text(labelWidth-8, y+13, "end", "label", s.Case+", "+s.Who)
		d.add(`<rect x="%d" y="%.1f" width="%.1f" height="%d" fill="%s"/>`, labelWidth, y, s.Median*scale, barHeight-4, colour(who[s.Who]))
		d.add(`<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" class="spread"/>`, labelWidth+s.Least*scale, labelWidth+s.Most*scale, y+7, y+7)
		d.add(`<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" class="limit"/>`, labelWidth+s.Limit*scale, labelWidth+s.Limit*scale, y-2, y+barHeight-2)
		d.text(labelWidth+max(s.Median, s.Limit, s.Most)*scale+6, y+12, "start", "value", fmt.Sprintf("%s, %.2f of the limit", s.Unit.Format(s.Median), s.Ratio))
		d.height += barHeight
	}
	d.height += 8
	return d.svg("rates beside the limit")
}

// axis maps values to pixels.
type axis struct {
	from, to   float64 // values, after transform
	least, end float64 // pixels
	transform  func(float64) float64
}

func (a axis) at(v float64) float64 {
	if a.to == a.from {
		return a.least
	}
	return a.least + (a.transform(v)-a.from)/(a.to-a.from)*(a.end-a.least)
}

func plain(v float64) float64 { return v }

// rarity spreads percentiles: 50, 90, 99, 99.9 are about as far from each other.
func rarity(percentile float64) float64 { return -math.Log10(1 - min(percentile, 99.999)/100) }

// plot draws a series. Latencies by percentile have a logarithmic y axis: the tail is the point.
func plot(s harness.Series) template.HTML {
	var points [][2]float64
	for _, line := range s.Lines {
		points = append(points, line.Points...)
	}
	if len(points) == 0 {
		return ""
	}
	x, y := axis{transform: plain, least: plotLeft, end: chartWidth - 20}, axis{transform: plain, least: plotTop + plotHeight, end: plotTop}
	switch s.Kind {
	case harness.Percentiles:
		x.transform, y.transform = rarity, math.Log10
	case harness.Logarithmic:
		x.transform = math.Log10
	}
	x.from, y.from, x.to, y.to = math.Inf(1), math.Inf(1), math.Inf(-1), math.Inf(-1)
	for _, p := range points {
		x.from, x.to = min(x.from, x.transform(p[0])), max(x.to, x.transform(p[0]))
		y.from, y.to = min(y.from, y.transform(p[1])), max(y.to, y.transform(p[1]))
	}
	if s.Kind == harness.Percentiles {
		y.from, y.to = math.Floor(y.from), math.Ceil(y.to)
	} else {
		y.from, y.to = 0, y.to*1.05
	}
	d := &drawing{}
	d.grid(s, x, y, points)
	d.lines(s.Lines, x, y)
	return d.svg(s.Title)
}

// lines draws those of one name alike, each name with its sign below.
func (d *drawing) lines(lines []harness.Line, x, y axis) {
	var names []string
	for _, line := range lines {
		if !slices.Contains(names, line.Name) {
			names = append(names, line.Name)
		}
		i := slices.Index(names, line.Name)
		d.add(`<polyline fill="none" stroke="%s" stroke-width="2" points="`, colour(i))
		for _, p := range line.Points {
			d.add("%.1f,%.1f ", x.at(p[0]), y.at(p[1]))
		}
		d.add(`"/>`)
	}
	for i, name := range names {
		below := plotTop + plotHeight + plotBottom + 16*float64(i)
		d.add(`<rect x="%d" y="%.1f" width="12" height="4" fill="%s"/>`, plotLeft, below-4, colour(i))
		d.text(plotLeft+18, below, "start", "label", name)
	}
	d.height = plotTop + plotHeight + plotBottom + 16*float64(len(names))
}

// grid draws the axes' ticks and names.
func (d *drawing) grid(s harness.Series, x, y axis, points [][2]float64) {
	for _, v := range yTicks(s.Kind, y) {
		at := y.at(v)
		d.add(`<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" class="grid"/>`, plotLeft, chartWidth-20, at, at)
		d.text(plotLeft-6, at+4, "end", "tick", quantity(s.Y, v))
	}
	for _, v := range xTicks(s.Kind, x, points) {
		at, anchor := x.at(v), "middle"
		if at > chartWidth-60 {
			anchor = "end" // or it would be cut off
		}
		d.add(`<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" class="grid"/>`, at, at, plotTop, plotTop+plotHeight)
		d.text(at, plotTop+plotHeight+16, anchor, "tick", quantity(s.X, v))
	}
	d.text(chartWidth-20, plotTop+plotHeight+32, "end", "tick", s.X)
}
