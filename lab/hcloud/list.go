package hcloud

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

type wireMeta struct {
	Pagination wirePagination `json:"pagination"`
}

type wirePagination struct {
	Page     int64  `json:"page"`
	PerPage  int64  `json:"per_page"`
	Previous *int64 `json:"previous_page"`
	Next     *int64 `json:"next_page"`
	Last     *int64 `json:"last_page"`
	Total    *int64 `json:"total_entries"`
}

// list answers one page of all, filtered by name and label_selector as the query says. labels is nil for kinds without.
func list[T, W any](r *request, key string, all []T, labels func(T) map[string]string, name func(T) string, wire func(T) W) (any, error) {
	sel, err := parseSelector(r.query.Get("label_selector"))
	if err != nil {
		return nil, invalid(field("label_selector", "%v", err))
	}
	want := r.query.Get("name")
	kept := slices.DeleteFunc(slices.Clone(all), func(t T) bool {
		return want != "" && name(t) != want || labels != nil && !sel.matches(labels(t))
	})
	if strings.HasSuffix(r.query.Get("sort"), ":desc") {
		slices.Reverse(kept)
	}
	part, meta, err := page(r, kept)
	if err != nil {
		return nil, err
	}
	out := make([]W, 0, len(part))
	for _, t := range part {
		out = append(out, wire(t))
	}
	return map[string]any{key: out, "meta": meta}, nil
}

const (
	defaultPerPage = 25
	maxPerPage     = 50
)

func page[T any](r *request, all []T) ([]T, wireMeta, error) {
	n, err1 := number(r.query, "page", 1)
	per, err2 := number(r.query, "per_page", defaultPerPage)
	if err1 != nil || err2 != nil {
		return nil, wireMeta{}, invalid(field("page", "page and per_page must be positive numbers"))
	}
	per = min(per, maxPerPage)
	total := int64(len(all))
	last := max(1, (total+per-1)/per)
	p := wirePagination{Page: n, PerPage: per, Last: &last, Total: &total}
	if n > 1 {
		p.Previous = ptr(n - 1)
	}
	if n < last {
		p.Next = ptr(n + 1)
	}
	*r.links = linkHeader(r.URL, p)
	from := min((n-1)*per, total)
	return all[from:min(from+per, total)], wireMeta{p}, nil
}

func number(q url.Values, key string, def int64) (int64, error) {
	s := q.Get(key)
	if s == "" {
		return def, nil
	}
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%s %q: expected a positive number", key, s)
	}
	return n, nil
}

func linkHeader(u *url.URL, p wirePagination) string {
	var links []string
	add := func(rel string, page *int64) {
		if page == nil {
			return
		}
		to, q := *u, u.Query()
		q.Set("page", strconv.FormatInt(*page, 10))
		to.RawQuery = q.Encode()
		links = append(links, fmt.Sprintf("<%s>; rel=%q", to.String(), rel))
	}
	add("prev", p.Previous)
	add("next", p.Next)
	add("last", p.Last)
	return strings.Join(links, ", ")
}

func ptr[T any](v T) *T { return &v }
