package policy

import (
	"fmt"
	"strings"
	"time"

	"popfleet/provision/provider"
)

// CrossCheck is what the provider said of a machine.
type CrossCheck struct {
	Done    bool                `json:"done"`
	Why     string              `json:"why,omitempty"`     // it could not be done
	Since   time.Time           `json:"since,omitzero"`    // the last good boot
	Ours    int                 `json:"ours"`              // risky acts that were ours
	Foreign []provider.Activity `json:"foreign,omitempty"` // risky acts and states that were not
}

func (c CrossCheck) words() string {
	if c.Why == "" {
		return "nobody here has its credentials"
	}
	return c.Why
}

// Span is the time in which this fleet did something to a machine at its provider.
type Span struct {
	Op       string
	From, To time.Time
}

// clockSlack is how far the provider's clock and ours may differ, and how late a provider may write an act down. It is
// short on purpose: what somebody else does that close to an act of ours looks like ours.
const clockSlack = 5 * time.Second

// Compare sorts a provider's activity into ours and foreign. What is armed for the next start right now is foreign
// whoever armed it: a node that is to boot its disk has nothing else armed. Without a good boot to count from, only
// that is looked at.
func Compare(acts []provider.Activity, since time.Time, ours []Span) CrossCheck {
	c := CrossCheck{Done: true, Since: since}
	for _, a := range acts {
		switch {
		case !a.Risky, !a.At.IsZero() && (since.IsZero() || a.At.Before(since)):
		case !a.At.IsZero() && within(ours, a.At):
			c.Ours++
		default:
			c.Foreign = append(c.Foreign, a)
		}
	}
	return c
}

func within(spans []Span, t time.Time) bool {
	for _, s := range spans {
		if !t.Before(s.From.Add(-clockSlack)) && !t.After(s.To.Add(clockSlack)) {
			return true
		}
	}
	return false
}

// maxListed bounds how much of a provider's log goes into one sentence.
const maxListed = 5

func list(acts []provider.Activity) string {
	var words []string
	for i, a := range acts {
		if i == maxListed {
			words = append(words, fmt.Sprintf("and %d more", len(acts)-i))
			break
		}
		if a.At.IsZero() {
			words = append(words, a.What+" (now)")
			continue
		}
		words = append(words, fmt.Sprintf("%s at %s", a.What, a.At.UTC().Format(time.RFC3339)))
	}
	return strings.Join(words, ", ")
}
