package robot

import (
	"mime"
	"net/url"
	"slices"
	"strings"
)

const (
	maxBodyBytes  = 64 << 10
	maxValueBytes = 16 << 10
)

// form says which parameters a call takes. Lists may be written name[]=a&name[]=b, name[0]=a or, for one element, name=a.
type form struct {
	required, optional, lists []string
}

// parse reads a form strictly: a parameter that the provider would ignore, a scalar given twice or an empty value is
// refused, since it is a mistake of ours. A body that is no form counts as nothing sent, as at the provider.
func (f form) parse(contentType string, body []byte) (url.Values, *apiError) {
	sent := url.Values{}
	if kind, _, err := mime.ParseMediaType(contentType); err == nil && kind == "application/x-www-form-urlencoded" {
		if sent, err = url.ParseQuery(string(body)); err != nil {
			return nil, invalid("body")
		}
	} else if len(body) > 0 && len(f.required) == 0 {
		return nil, invalid("content-type")
	}
	return f.sort(sent)
}

// sort puts list elements under their plain names and finds what is missing or wrong.
func (f form) sort(sent url.Values) (url.Values, *apiError) {
	out, e := url.Values{}, invalid()
	for _, name := range sortedKeys(sent) {
		base, list := plain(name)
		switch {
		case slices.Contains(f.lists, base):
			out[base] = append(out[base], sent[name]...)
		case list || len(sent[name]) > 1 || !f.knows(base):
			e.invalid = append(e.invalid, name)
		default:
			out[base] = sent[name]
		}
	}
	for _, name := range sortedKeys(out) {
		if slices.ContainsFunc(out[name], unfit) {
			e.invalid = append(e.invalid, name)
		}
	}
	for _, name := range f.required {
		if len(out[name]) == 0 {
			e.missing = append(e.missing, name)
		}
	}
	if e.missing != nil || e.invalid != nil {
		return nil, e
	}
	return out, nil
}

func (f form) knows(name string) bool {
	return slices.Contains(f.required, name) || slices.Contains(f.optional, name)
}

func unfit(v string) bool {
	return strings.TrimSpace(v) == "" || len(v) > maxValueBytes || strings.ContainsRune(v, 0)
}

// plain splits name[] and name[7] into the name and whether it had brackets. Other brackets belong to the name.
func plain(name string) (string, bool) {
	base, index, ok := strings.Cut(name, "[")
	index, closed := strings.CutSuffix(index, "]")
	if !ok || !closed || strings.Trim(index, "0123456789") != "" {
		return name, false
	}
	return base, true
}

func sortedKeys(v url.Values) []string {
	out := make([]string, 0, len(v))
	for k := range v {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
