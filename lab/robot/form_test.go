package robot

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"
	"time"
)

const formKind = "application/x-www-form-urlencoded; charset=utf-8"

func TestForm(t *testing.T) {
	f := form{required: []string{"os"}, optional: []string{"arch"}, lists: []string{"key"}}
	for _, c := range []struct {
		name, kind, body string
		missing, invalid []string
		keys             []string
	}{
		{"plain", formKind, "os=linux", nil, nil, nil},
		{"list", formKind, "os=linux&key[]=a&key[]=b", nil, nil, []string{"a", "b"}},
		{"list, escaped", formKind, "os=linux&key%5B%5D=a", nil, nil, []string{"a"}},
		{"list, numbered", formKind, "os=linux&key[0]=a&key[1]=b", nil, nil, []string{"a", "b"}},
		{"list of one", formKind, "os=linux&key=a", nil, nil, []string{"a"}},
		{"nothing", formKind, "", []string{"os"}, nil, nil},
		{"unknown", formKind, "os=linux&system=x", nil, []string{"system"}, nil},
		{"both", formKind, "arch=1&x=2", []string{"os"}, []string{"x"}, nil},
		{"twice", formKind, "os=linux&os=vkvm", []string{"os"}, []string{"os"}, nil},
		{"scalar with brackets", formKind, "os[]=linux", []string{"os"}, []string{"os[]"}, nil},
		{"empty", formKind, "os=", nil, []string{"os"}, nil},
		{"empty element", formKind, "os=linux&key[]=", nil, []string{"key"}, nil},
		{"json", "application/json", `{"os":"linux"}`, []string{"os"}, nil, nil},
		{"no type", "", "os=linux", []string{"os"}, nil, nil},
		{"broken", formKind, "os=%zz", nil, []string{"body"}, nil},
	} {
		got, e := f.parse(c.kind, []byte(c.body))
		if e == nil {
			e = &apiError{}
		}
		if !slices.Equal(e.missing, c.missing) || !slices.Equal(e.invalid, c.invalid) || !slices.Equal(got["key"], c.keys) {
			t.Errorf("%s: missing %v, invalid %v, keys %v", c.name, e.missing, e.invalid, got["key"])
		}
	}
}

func FuzzForm(f *testing.F) {
	for _, s := range []string{"os=linux&key[]=a", "os[=1", "a]=1", "key[0", "key[x]=1", "%5B%5D=", "os=\x00"} {
		f.Add(formKind, []byte(s))
	}
	want := form{required: []string{"os"}, optional: []string{"arch"}, lists: []string{"key"}}
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		got, e := want.parse(kind, body)
		if e != nil {
			if data, err := json.Marshal(e); err != nil || !bytes.Contains(data, []byte(`"INVALID_INPUT"`)) {
				t.Fatal(string(data), err)
			}
			return
		}
		if len(got["os"]) != 1 {
			t.Fatalf("accepted without os: %q", body)
		}
		for name, values := range got {
			if !slices.Contains([]string{"os", "arch", "key"}, name) || slices.ContainsFunc(values, unfit) {
				t.Fatalf("accepted %q=%q", name, values)
			}
		}
	})
}

func FuzzKey(f *testing.F) {
	f.Add("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4n5xVtIu5R3XhXyBbZJgUWlSIeN4yRJyUMTpyNyhaK test")
	f.Add("command=\"x\" ssh-rsa AAAA")
	f.Fuzz(func(t *testing.T, data string) {
		k, e := parseKey("k", data)
		if e == nil && (len(k.Fingerprint) != 47 || k.Size < 256) {
			t.Fatalf("accepted as %+v", k)
		}
	})
}

// The provider's pace is that of the field: keys 78 to 82 seconds after a reset.
func TestPace(t *testing.T) {
	r := &Robot{opt: Options{Speed: 20}}
	if d := Realistic(postTime) + Realistic(rescueTime); d < 78*time.Second || d > 82*time.Second {
		t.Errorf("keys after %v", d)
	}
	if d := r.delay(postTime); d != 2*time.Second {
		t.Errorf("at 20 times the pace: %v", d)
	}
	if d := (&Robot{}).delay(postTime); d != 0 {
		t.Errorf("at no pace: %v", d)
	}
}

func TestGuardForgets(t *testing.T) {
	g := newGuard(Options{LockOut: 10 * time.Minute})
	now := time.Now()
	for _, after := range []time.Duration{0, time.Minute, 10*time.Minute + 30*time.Second} {
		g.mark("a", false, now.Add(after))
	}
	if g.isBlocked("a", now.Add(10*time.Minute+31*time.Second)) {
		t.Error("the first wrong password was not forgotten")
	}
	g.mark("a", false, now.Add(10*time.Minute+45*time.Second))
	at := now.Add(10*time.Minute + 46*time.Second)
	if !g.isBlocked("a", at) || g.isBlocked("b", at) || g.isBlocked("a", at.Add(10*time.Minute)) {
		t.Error("blocked for too long, too short, or the wrong one")
	}
	for range 3 {
		if e := g.spend("wol_post", now); e != nil {
			t.Fatal(e)
		}
	}
	g.limits["wol_post"] = 3
	if g.spend("wol_post", now.Add(59*time.Minute)) == nil || g.spend("wol_post", now.Add(time.Hour)) != nil {
		t.Error("a window is not an hour")
	}
}

// Boot times of one server are told to the second and differ, whatever the clock says; Berlin's is without a zone.
func TestBootTime(t *testing.T) {
	r := &Robot{}
	var err error
	if r.berlin, err = time.LoadLocation("Europe/Berlin"); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 9, 8, 15, 2, 3, 5e8, time.UTC)
	first := bootTime(at, nil)
	second := bootTime(at, &activation{BootTime: &first})
	if r.local(first) != "2026-09-08 17:02:03" || r.local(second) != "2026-09-08 17:02:04" {
		t.Errorf("%s, %s", r.local(first), r.local(second))
	}
}
