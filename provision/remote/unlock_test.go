package remote

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"popfleet/internal/dial"
)

// script answers each login with the next line: what stderr says and the exit status.
type script struct {
	says   string
	status uint32
}

func TestUnlock(t *testing.T) {
	opened := script{"cryptsetup: fleet-root: set up successfully", 0}
	early := script{"Try again later", 1}
	prompt := script{"Timeout reached while waiting for askpass.", 1}
	wrong := script{"Error: cryptsetup failed, bad password or options?", 1}
	lost := script{"", noExit}
	busy := script{"fleet: busy: another unlocker is here; no try was used", 75}
	refused := script{"fleet: wrong key: it opens no key slot; no try was used", 65}
	empty := script{"fleet: no key came; no try was used", 65}
	cases := map[string]struct {
		answers []script
		system  bool // the system answers after the last answer
		keys    int  // keys that may arrive
		want    Outcome
		after   time.Duration // at least
	}{
		"opened":                     {[]script{opened}, true, 1, Opened, 0},
		"too early, then opened":     {[]script{early, early, opened}, true, 3, Opened, 6 * time.Second},
		"degraded array":             {[]script{prompt, prompt, prompt, opened}, true, 4, Opened, 9 * time.Second},
		"wrong key stops at once":    {[]script{wrong}, false, 1, WrongKey, 0},
		"tries exceeded":             {[]script{{"maximum number of tries exceeded", 1}}, false, 1, TriesExceeded, 0},
		"lost, system up":            {[]script{lost}, true, 1, Opened, 0},
		"lost, still locked, opened": {[]script{lost, opened}, false, 2, Opened, 30 * time.Second},
		"never asks":                 {nil, false, 0, TooEarly, 2 * time.Minute},
		"another is first, and done": {[]script{busy}, true, 1, Opened, 0},
		"another is first, and gone": {[]script{busy, busy, opened}, false, 3, Opened, 6 * time.Second},
		"the door says wrong":        {[]script{refused}, false, 1, WrongKey, 0},
		"the key was lost, then not": {[]script{empty, opened}, false, 2, Opened, 30 * time.Second},
		"strange":                    {[]script{{"sh: not found", 127}}, false, 1, Strange, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { unlockOnce(t, c.answers, c.system, c.keys, c.want, c.after) })
		})
	}
}

func unlockOnce(t *testing.T, answers []script, system bool, keys int, want Outcome, after time.Duration) {
	s, target, key := setup(t)
	var n, bad atomic.Int32
	s.run = func(_ string, ch ssh.Channel) uint32 {
		got, _ := io.ReadAll(ch)
		if string(got) != "secret" {
			bad.Add(1)
		}
		i := int(n.Add(1)) - 1
		if i >= len(answers) {
			_, _ = io.WriteString(ch.Stderr(), "Try again later\n")
			return 1
		}
		_, _ = io.WriteString(ch.Stderr(), answers[i].says+"\n")
		return answers[i].status
	}
	sys := &server{host: newKey(t), client: key.PublicKey()}
	route := routes{target.Addr: s}
	if system {
		route["192.0.2.1:2200"] = sys
	}
	start := time.Now()
	err := Unlock(t.Context(), route, Unlocking{
		Locked: Locked{Addr: target.Addr, HostKey: s.host.PublicKey(), Auth: key},
		System: "192.0.2.1:2200", SystemKeys: []ssh.PublicKey{sys.host.PublicKey()},
	}, []byte("secret"))
	var failed *UnlockError
	switch {
	case want == Opened && err != nil:
		t.Errorf("got %v", err)
	case want != Opened && (!errors.As(err, &failed) || failed.Outcome != want):
		t.Errorf("got %v, want %s", err, want)
	}
	if keys > 0 && int(n.Load()) != keys || bad.Load() > 0 {
		t.Errorf("%d keys arrived, %d of them damaged; want %d", n.Load(), bad.Load(), keys)
	}
	if took := time.Since(start); took < after || took > 5*time.Minute {
		t.Errorf("took %s, want at least %s", took, after)
	}
	s.wg.Wait()
	sys.wg.Wait()
}

type routes map[string]dial.Dialer

func (r routes) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	if d, ok := r[addr]; ok {
		return d.DialContext(ctx, network, addr)
	}
	return nil, errors.New("connection refused")
}

func TestUnlockNeverTellsAnImpostor(t *testing.T) {
	s, target, key := setup(t)
	s.run = func(string, ssh.Channel) uint32 { return 0 }
	err := Unlock(t.Context(), s, Unlocking{
		Locked: Locked{Addr: target.Addr, HostKey: newKey(t).PublicKey(), Auth: key}, System: target.Addr,
	}, []byte("secret"))
	var wrong *HostKeyError
	if !errors.As(err, &wrong) {
		t.Fatalf("got %v", err)
	}
	s.wg.Wait()
	if s.auths.Load() != 0 {
		t.Error("the impostor was logged in to")
	}
}

func TestKeyWithNewlineIsNotSent(t *testing.T) {
	for _, k := range []string{"", "secret\n"} {
		if o, _, err := SendKey(t.Context(), routes{}, Locked{}, []byte(k)); o != Refused || !strings.Contains(err.Error(), "not sent") {
			t.Errorf("%q: %s, %v", k, o, err)
		}
	}
}
