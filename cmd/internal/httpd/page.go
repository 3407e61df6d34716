package httpd

import (
	"html/template"
	"net/http"
)

// pageText is plain on purpose: it only leads to what programs read.
const pageText = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>tiffin</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:3rem auto;padding:0 1rem}</style>
<h1>tiffin <small>{{.Version}}</small></h1>
{{if .Reasons}}<p>Not ready:</p><ul>{{range .Reasons}}<li>{{.}}</li>{{end}}</ul>{{else}}<p>Ready.</p>{{end}}
<p><a href="/readyz">/readyz</a> · <a href="/livez">/livez</a> · <a href="/metrics">/metrics</a></p>
</html>
`

func (s *Server) page(w http.ResponseWriter, _ *http.Request) {
	page, err := template.New("page").Parse(pageText)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	header.Set("X-Content-Type-Options", "nosniff")
	data := struct {
		Version string
		Reasons []string
	}{s.cfg.Version, s.cfg.Readiness.Reasons()}
	if err := page.Execute(w, data); err != nil {
		s.cfg.Log.Debug("page not answered", "err", err)
	}
}
