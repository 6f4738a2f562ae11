package pace

import (
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]Pace{"": 1, "real": 1, "kvm": 1, "emulated": 4, "0.2": 0.2, "12.5": 12.5} {
		if got, err := Parse(in); err != nil || got != want {
			t.Errorf("%q is %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"slow", "0", "-1", "0.001", "1000", "NaN", "Inf", "4x"} {
		if got, err := Parse(in); err == nil {
			t.Errorf("%q is taken as %v", in, got)
		}
	}
	if d := Emulated.Of(time.Minute); d != 4*time.Minute {
		t.Errorf("a minute emulated is %s", d)
	}
	if d := Pace(0).Of(time.Minute); d != time.Minute {
		t.Errorf("the zero pace makes %s of a minute", d)
	}
}
