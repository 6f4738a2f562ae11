// Package pace scales waits to the kind of machine that is waited for: an emulated machine boots minutes where a real
// one needs seconds. Only deadlines are scaled, never what is checked.
package pace

import (
	"fmt"
	"strconv"
	"time"
)

// EnvPace names the environment variable that says what kind of machines the fleet runs on.
const EnvPace = "FLEET_PACE"

// Pace is a factor for deadlines.
type Pace float64

// The kinds of machine.
const (
	Real     Pace = 1
	Emulated Pace = 4
)

// Parse reads real, kvm, emulated or a factor for machines of another kind, 0.01 to 100; empty is real.
func Parse(s string) (Pace, error) {
	switch s {
	case "", "real", "kvm":
		return Real, nil
	case "emulated":
		return Emulated, nil
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil && f >= 0.01 && f <= 100 {
		return Pace(f), nil
	}
	return 0, fmt.Errorf("%s %q: expected real, kvm, emulated or a factor from 0.01 to 100", EnvPace, s)
}

// Of is d at this pace.
func (p Pace) Of(d time.Duration) time.Duration {
	if p <= 0 {
		p = Real
	}
	return time.Duration(float64(d) * float64(p))
}
