package controller

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"popfleet/fleet/controller/audit"
	"popfleet/internal/mtls"
	"popfleet/inventory/vault"
	"popfleet/provision/lifecycle"
)

// What a person can say of a node's unlocking.
const (
	SayNever   = "never"   // nobody unlocks it, whatever the policy says, until it is allowed again
	SayAllow   = "allow"   // takes never back
	SayApprove = "approve" // the next unlocking is right, although the policy holds it; good for one
	SayTrust   = "trust"   // what a suspect node boots from now is right
	SayExpect  = "expect"  // it is about to reboot; good for one unlocking, as long as it comes back in time
)

// Saying is the body of POST /v1/nodes/{node}/said. By and At are the person's own, so that a controller on the same
// folder, which has it twice, takes it for one.
type Saying struct {
	Say    string    `json:"say"`
	By     string    `json:"by"`
	At     time.Time `json:"at"`
	ForSec float64   `json:"for_sec,omitempty"` // of approve and expect; default 30 minutes
	Why    string    `json:"why,omitempty"`
}

// Bounds of what is said.
const (
	defaultApproval = 30 * time.Minute
	maxApproval     = 24 * time.Hour
	maxWhyBytes     = 500
)

// ErrNothingToTrust means that the node is not suspect.
var ErrNothingToTrust = errors.New("the node is not suspect: there is nothing to trust anew")

// Apply writes down what was said, in the node's unlock state and in the audit log. It returns what holds now, in words.
func (s Saying) Apply(boots lifecycle.Boots, l audit.Log, node string) (words string, err error) {
	if err := s.check(); err != nil {
		return "", err
	}
	_, err = boots.UpdateUnlock(node, func(u *vault.UnlockState) error {
		words, err = s.change(u, node)
		return err
	})
	if err != nil {
		return "", err
	}
	said, err := json.Marshal(s)
	if err != nil {
		return "", err
	}
	return words, l.Append(audit.Entry{Who: s.By, Node: node, Verdict: audit.VerdictOrder, Why: words, Evidence: said})
}

func (s Saying) check() error {
	switch {
	case s.By == "" || s.At.IsZero():
		return errors.New("who says it, and when, is missing")
	case len(s.Why) > maxWhyBytes || len(s.By) > maxWhyBytes:
		return fmt.Errorf("more than %d bytes of words", maxWhyBytes)
	case s.ForSec < 0 || s.ForSec > maxApproval.Seconds():
		return fmt.Errorf("for_sec %g; expected at most %g", s.ForSec, maxApproval.Seconds())
	}
	return nil
}

func (s Saying) change(u *vault.UnlockState, node string) (words string, err error) {
	order := &vault.Order{By: s.By, At: s.At.UTC(), Why: s.Why}
	switch s.Say {
	case SayNever:
		u.Never = order
		return node + " is never unlocked, until `fleet unlock --allow " + node + "`", nil
	case SayAllow:
		u.Never = nil
		return node + " may be unlocked again, as the policy says", nil
	case SayApprove:
		if !u.Used.Before(order.At) {
			return "", errors.New("this approval was used before")
		}
		order.Until = order.At.Add(s.approvedFor())
		u.Approval = order
		return fmt.Sprintf("one unlocking of %s is approved until %s", node, order.Until.Format(time.RFC3339)), nil
	case SayExpect:
		order.Until = order.At.Add(s.approvedFor())
		u.Expected = order
		return fmt.Sprintf("a reboot of %s is expected until %s", node, order.Until.Format(time.RFC3339)), nil
	case SayTrust:
		return s.trust(u, node)
	}
	return "", fmt.Errorf("%q is none of %s, %s, %s, %s, %s", s.Say, SayNever, SayAllow, SayApprove, SayExpect, SayTrust)
}

func (s Saying) approvedFor() time.Duration {
	if s.ForSec == 0 {
		return defaultApproval
	}
	return time.Duration(s.ForSec * float64(time.Second))
}

// trust takes what the suspect node boots from for good. Its boot is proven again, by that, and its key exchanged then.
func (s Saying) trust(u *vault.UnlockState, node string) (string, error) {
	q := u.Suspect
	if q == nil {
		return "", ErrNothingToTrust
	}
	u.Suspect = nil
	if q.Manifest == "" {
		return node + " is believed again", nil
	}
	good := &vault.GoodBoot{Install: q.Install, At: s.At.UTC(), Manifest: q.Manifest, Files: q.Files}
	if u.Good != nil && u.Good.Install == q.Install {
		good.Rotated = u.Good.Rotated
	}
	u.Good = good
	return fmt.Sprintf("what %s boots from now is taken for good (manifest %.12s…)", node, q.Manifest), nil
}

func (b *board) postSaid(w http.ResponseWriter, r *http.Request, who mtls.Name) error {
	node := r.PathValue("node")
	if _, known := b.inventory().Node(node); !known {
		return &refusal{http.StatusNotFound, fmt.Sprintf("no node %q in the controller's fleet file", node)}
	}
	if b.deps.Lifecycle.Boots == nil {
		return &refusal{http.StatusNotImplemented, "this controller keeps nothing of what is said"}
	}
	var s Saying
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4096))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return &refusal{http.StatusBadRequest, "said: " + err.Error()}
	}
	s.By = who.Node // as the certificate says, not the body
	words, err := s.Apply(b.deps.Lifecycle.Boots, b.log, node)
	if err != nil {
		return &refusal{http.StatusBadRequest, "said: " + err.Error()}
	}
	b.deps.Log.Info("a person said", "node", node, "who", who.Node, "say", s.Say)
	if _, err := b.said(node); err != nil {
		return err
	}
	b.change(node, func(rec *record, _ time.Time) { rec.nextVisit, rec.nextProof, rec.proofs = time.Time{}, time.Time{}, 0 })
	return answer(w, map[string]string{"words": words})
}
