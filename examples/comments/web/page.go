package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
)

//go:embed page
var files embed.FS

// page is what a person uses: one HTML file, one style sheet, one script.
type page struct {
	index  []byte
	assets map[string]asset
}

type asset struct {
	kind, tag string
	data      []byte
}

func newPage(node, version string) (*page, error) {
	p := &page{assets: map[string]asset{}}
	for name, kind := range map[string]string{
		"app.js": "text/javascript; charset=utf-8", "style.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml"} {
		data, err := fs.ReadFile(files, "page/"+name)
		if err != nil {
			return nil, fmt.Errorf("page: %w", err)
		}
		sum := sha256.Sum256(data)
		p.assets[name] = asset{kind: kind, tag: hex.EncodeToString(sum[:8]), data: data}
	}
	t, err := template.ParseFS(files, "page/index.html")
	if err != nil {
		return nil, fmt.Errorf("page: %w", err)
	}
	var b bytes.Buffer
	err = t.Execute(&b, map[string]string{"Node": node, "Version": version,
		"Script": p.assets["app.js"].tag, "Style": p.assets["style.css"].tag, "Icon": p.assets["icon.svg"].tag})
	if err != nil {
		return nil, fmt.Errorf("page: %w", err)
	}
	p.index = b.Bytes()
	return p, nil
}

// routes serves the page at / and at each thread's address, and what it loads.
func (p *page) routes(mux *http.ServeMux) {
	index := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Cache-Control", "no-cache")
		_, _ = w.Write(p.index) // the client went away
	}
	mux.HandleFunc("GET /{$}", index)
	mux.HandleFunc("GET /threads/{thread}", index)
	mux.HandleFunc("GET /assets/{name}", p.asset)
}

// asset serves a file under a name that changes with its content, so that during an upgrade no page gets the other
// release's script out of a cache.
func (p *page) asset(w http.ResponseWriter, r *http.Request) {
	a, ok := p.assets[r.PathValue("name")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", a.kind)
	w.Header().Set("Cache-Control", "no-cache")
	if r.URL.Query().Get("v") == a.tag {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	_, _ = w.Write(a.data) // the client went away
}
