package hcloud

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Label rules: docs.hetzner.cloud, "Labels" and "Label Selector".
var (
	labelPrefix = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)
	labelName   = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`)
)

func checkLabels(labels map[string]string) *apiError {
	for k, v := range labels {
		if !goodKey(k) || strings.HasPrefix(k, "hetzner.cloud/") {
			return invalid(field("labels", "label key %q is not allowed", k))
		}
		if v != "" && !labelName.MatchString(v) {
			return invalid(field("labels", "label value %q of %q is not allowed", v, k))
		}
	}
	return nil
}

func goodKey(k string) bool {
	prefix, name, found := strings.Cut(k, "/")
	if !found {
		return labelName.MatchString(k)
	}
	return labelPrefix.MatchString(prefix) && labelName.MatchString(name)
}

// selector is a list of conditions that must all hold.
type selector []condition

type condition struct {
	key    string
	op     string // = | != | in | notin | exists | !exists
	values []string
}

func (s selector) matches(labels map[string]string) bool {
	for _, c := range s {
		if !c.matches(labels) {
			return false
		}
	}
	return true
}

func (c condition) matches(labels map[string]string) bool {
	v, has := labels[c.key]
	switch c.op {
	case "exists":
		return has
	case "!exists":
		return !has
	case "=", "in":
		return has && slices.Contains(c.values, v)
	default: // != and notin hold for an object without the label too
		return !has || !slices.Contains(c.values, v)
	}
}

// parseSelector reads a label_selector: k==v, k=v, k!=v, k in (a,b), k notin (a,b), k, !k, joined by commas.
func parseSelector(text string) (selector, error) {
	var out selector
	for _, part := range splitSelector(text) {
		c, err := parseCondition(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// splitSelector cuts at commas outside parentheses.
func splitSelector(text string) []string {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	var out []string
	depth, start := 0, 0
	for i, r := range text {
		switch r {
		case '(':
			depth++
		case ')':
			depth--
		case ',':
			if depth == 0 {
				out = append(out, text[start:i])
				start = i + 1
			}
		}
	}
	return append(out, text[start:])
}

var setCondition = regexp.MustCompile(`^(\S+)\s+(in|notin)\s*\(([^()]*)\)$`)

func parseCondition(s string) (condition, error) {
	c := condition{}
	if m := setCondition.FindStringSubmatch(s); m != nil {
		c.key, c.op = m[1], m[2]
		for v := range strings.SplitSeq(m[3], ",") {
			c.values = append(c.values, strings.TrimSpace(v))
		}
	} else if k, v, ok := strings.Cut(s, "!="); ok {
		c = condition{strings.TrimSpace(k), "!=", []string{strings.TrimSpace(v)}}
	} else if k, v, ok := strings.Cut(s, "="); ok {
		c = condition{strings.TrimSpace(k), "=", []string{strings.TrimSpace(strings.TrimPrefix(v, "="))}}
	} else if k, ok := strings.CutPrefix(s, "!"); ok {
		c = condition{key: strings.TrimSpace(k), op: "!exists"}
	} else {
		c = condition{key: s, op: "exists"}
	}
	return c, c.check()
}

func (c condition) check() error {
	if !goodKey(c.key) {
		return fmt.Errorf("label selector: key %q is not allowed", c.key)
	}
	for _, v := range c.values {
		if v != "" && !labelName.MatchString(v) {
			return fmt.Errorf("label selector: value %q is not allowed", v)
		}
	}
	return nil
}
