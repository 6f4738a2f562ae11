package controller_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"popfleet/fleet/controller"
	"popfleet/fleet/controller/audit"
	"popfleet/fleet/controller/client"
	"popfleet/internal/dial"
	"popfleet/internal/mtls/mtlstest"
)

// What an operator says over the wire is kept under the name in the certificate, shown, and written down; nobody else
// can say anything.
func TestWhoMaySayWhat(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, mtlstest.New(t))
	as := func(service, name string) *client.Client {
		return client.New(dial.Direct(), r.as(service, name), fleetName, r.addr)
	}
	now := time.Now()
	for _, c := range []struct {
		service string
		node    string
		say     controller.Saying
		want    string // in the words, or in the error after "!"
	}{
		{"operator", "fsn-1", controller.Saying{Say: controller.SayNever, By: "somebody else", At: now, Why: "stolen"}, "fsn-1 is never unlocked"},
		{"operator", "fsn-2", controller.Saying{Say: controller.SayApprove, By: "x", At: now, ForSec: 600}, "one unlocking of fsn-2 is approved until"},
		{"agent", "fsn-1", controller.Saying{Say: controller.SayAllow, By: "x", At: now}, "!403"},
		{"operator", "fsn-9", controller.Saying{Say: controller.SayAllow, By: "x", At: now}, "!404"},
		{"operator", "fsn-1", controller.Saying{Say: "open sesame", By: "x", At: now}, "!400"},
		{"operator", "fsn-1", controller.Saying{Say: controller.SayTrust, By: "x", At: now}, "!not suspect"},
		{"operator", "fsn-1", controller.Saying{Say: controller.SayApprove, By: "x", At: now, ForSec: 1e6}, "!for_sec"},
		{"operator", "fsn-1", controller.Saying{Say: controller.SayNever, By: "x", At: now, Why: strings.Repeat("x", 5000)}, "!too large"},
	} {
		words, err := as(c.service, "ada").Say(t.Context(), c.node, c.say)
		got := words
		if err != nil {
			got = "!" + err.Error()
		}
		if refused := strings.HasPrefix(c.want, "!"); refused != (err != nil) || !strings.Contains(got, strings.TrimPrefix(c.want, "!")) {
			t.Errorf("%s says %s of %s: %q, expected %q", c.service, c.say.Say, c.node, got, c.want)
		}
	}
	if n := r.status().Nodes[0]; n.Never != "ada" {
		t.Errorf("the status says that %q forbade it", n.Never)
	}
	var said []string
	head, err := controller.AuditFile(dir).Read(func(e audit.Entry) error {
		said = append(said, e.Who+" "+e.Node+" "+e.Verdict)
		return nil
	})
	if err != nil || head == "" || strings.Join(said, ", ") != "ada fsn-1 order, ada fsn-2 order" {
		t.Errorf("%s: %v, %v", filepath.Join(dir, "audit.jsonl"), said, err)
	}
}
