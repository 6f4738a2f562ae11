package hcloud

import "testing"

func TestSelectorRefuses(t *testing.T) {
	for _, s := range []string{"a=b=c", "a in b", "a in (b c)", "=b", "!", "a in (b", ",", "a,,b"} {
		if _, err := parseSelector(s); err == nil {
			t.Errorf("selector %q was taken", s)
		}
	}
}

func FuzzSelector(f *testing.F) {
	for _, s := range []string{"", "a", "!a", "a=b", "a==b", "a!=b", "a in (b, c)", "a notin (b),c", "popfleet/node=fsn-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		sel, err := parseSelector(s)
		if err != nil {
			return
		}
		for _, c := range sel {
			// Every condition must hold for some labels and fail for others.
			with := map[string]string{c.key: "zzz"}
			if len(c.values) > 0 {
				with[c.key] = c.values[0]
			}
			yes, no := with, map[string]string{}
			if c.op == "!exists" || c.op == "!=" || c.op == "notin" {
				yes, no = no, yes
			}
			if !c.matches(yes) || c.matches(no) {
				t.Errorf("%q: condition %+v does not tell %v from %v", s, c, yes, no)
			}
		}
	})
}
