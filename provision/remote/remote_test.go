package remote

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"popfleet/playbooks/spec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const rtt = 200 * time.Millisecond

func agentFile(t testing.TB) Agent {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent")
	if err := os.WriteFile(path, []byte(strings.Repeat("binary ", 10_000)), 0o700); err != nil {
		t.Fatal(err)
	}
	a, err := AgentFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// fakeAgent plays the node's end of the exchange.
func fakeAgent(have bool, size int64) func(string, ssh.Channel) uint32 {
	return func(_ string, ch ssh.Channel) uint32 {
		in := bufio.NewReader(ch)
		if have {
			fmt.Fprintln(ch, "HAVE")
		} else {
			fmt.Fprintln(ch, "NEED")
			var n int64
			if _, err := fmt.Fscanln(in, &n); err != nil {
				return 90
			}
			z, err := gzip.NewReader(io.LimitReader(in, n))
			if err != nil {
				return 90
			}
			if got, err := io.Copy(io.Discard, z); err != nil || got != size {
				return 90
			}
		}
		for {
			line, err := in.ReadBytes('\n')
			if err != nil {
				return 0
			}
			var r spec.Request
			if json.Unmarshal(line, &r) != nil {
				return 1
			}
			answer(r, in, ch)
		}
	}
}

func answer(r spec.Request, in *bufio.Reader, ch ssh.Channel) {
	emit := func(e spec.Event) {
		e.V, e.ID = 1, r.ID
		b, _ := json.Marshal(e)
		_, _ = ch.Write(append(b, '\n'))
	}
	switch r.Op {
	case spec.OpFacts:
		emit(spec.Event{Kind: spec.KindResult, Data: json.RawMessage(`{"hostname":"rescue","rescue":true,"news":1}`)})
	case spec.OpInstall:
		emit(spec.Event{Kind: spec.KindNeed, Blobs: []spec.Blob{{SHA256: "image", SizeBytes: 1 << 20}}})
		line, _ := in.ReadBytes('\n')
		var h spec.BlobHeader
		_ = json.Unmarshal(line, &h)
		n, _ := io.CopyN(io.Discard, in, h.SizeBytes)
		emit(spec.Event{Kind: spec.KindProgress, Step: h.Blob, Done: n, Total: n})
		emit(spec.Event{Kind: spec.KindResult, Data: json.RawMessage(`{"run":"r1"}`)})
	case spec.OpWipe:
		emit(spec.Event{Kind: spec.KindLog, Text: "cryptsetup: device busy"})
		emit(spec.Event{Kind: spec.KindError, Error: &spec.Error{Code: spec.CodeWrongNode, Message: "this is fsn-9", Hint: "look at the address"}})
	default:
		ch.Close()
	}
}

func setup(t testing.TB) (*server, Target, ssh.Signer) {
	host, key := newKey(t), newKey(t)
	s := &server{host: host, client: key.PublicKey()}
	return s, Target{Addr: "192.0.2.1:22", Trust: Pinned(host.PublicKey()), Auth: key}, key
}

// The bars of the exchange: cold at most 11 round trips, warm at most 2. Time in the bubble stands still but for the
// wire, so elapsed time is round trips exactly.
func TestRoundTrips(t *testing.T) {
	for name, have := range map[string]bool{"agent there": true, "agent shipped": false} {
		t.Run(name, func(t *testing.T) {
			a := agentFile(t)
			synctest.Test(t, func(t *testing.T) {
				s, target, _ := setup(t)
				s.delay, s.run = rtt/2, fakeAgent(have, a.SizeBytes)
				start := time.Now()
				c, err := Connect(t.Context(), s, target)
				if err != nil {
					t.Fatal(err)
				}
				x, err := c.Exchange(t.Context(), a, nil)
				if err != nil {
					t.Fatal(err)
				}
				var f spec.Facts
				if err := x.Do(t.Context(), Call{Op: spec.OpFacts, Result: &f}); err != nil || f.Hostname != "rescue" {
					t.Fatal(f, err)
				}
				cold := float64(time.Since(start)) / float64(rtt)
				start = time.Now()
				if err := x.Do(t.Context(), Call{Op: spec.OpFacts, Result: &f}); err != nil {
					t.Fatal(err)
				}
				warm := float64(time.Since(start)) / float64(rtt)
				t.Logf("cold %.1f round trips, warm %.1f", cold, warm)
				if cold > 11 || warm > 2 {
					t.Errorf("cold %.1f, warm %.1f round trips; the bars are 11 and 2", cold, warm)
				}
				x.Close()
				c.Close()
				s.wg.Wait()
			})
		})
	}
}

type blobText map[string]string

func (b blobText) Open(d string) (io.ReadCloser, int64, error) {
	text, ok := b[d]
	if !ok {
		return nil, 0, fmt.Errorf("no blob %s", d)
	}
	return io.NopCloser(strings.NewReader(text)), int64(len(text)), nil
}

func TestExchange(t *testing.T) {
	a := agentFile(t)
	s, target, _ := setup(t)
	s.run = fakeAgent(false, a.SizeBytes)
	c, err := Connect(t.Context(), s, target)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	x, err := c.Exchange(t.Context(), a, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got spec.Installed
	var progress int64
	err = x.Do(t.Context(), Call{
		Op: spec.OpInstall, Spec: spec.Install{Run: "r1"}, Result: &got,
		Blobs:  blobText{"image": strings.Repeat("x", 1<<20)},
		Events: func(e spec.Event) { progress = max(progress, e.Done) },
	})
	if err != nil || got.Run != "r1" || progress != 1<<20 {
		t.Fatalf("install: %+v, %d bytes, %v", got, progress, err)
	}
	var told *spec.Error
	if err := x.Do(t.Context(), Call{Op: spec.OpWipe}); !errors.As(err, &told) || told.Code != spec.CodeWrongNode {
		t.Errorf("a reported error came as %v", err)
	}
	if tail := x.Tail(); len(tail) != 1 || tail[0] != "cryptsetup: device busy" {
		t.Errorf("tail %q", tail)
	}
	var cut *CutError
	if err := x.Do(t.Context(), Call{Op: "hang up"}); !errors.As(err, &cut) {
		t.Errorf("a cut exchange came as %v", err)
	}
}

func TestMissingBlobEndsTheExchange(t *testing.T) {
	a := agentFile(t)
	s, target, _ := setup(t)
	s.run = fakeAgent(true, 0)
	c, err := Connect(t.Context(), s, target)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	x, err := c.Exchange(t.Context(), a, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = x.Do(t.Context(), Call{Op: spec.OpInstall, Blobs: blobText{}})
	if err == nil || !strings.Contains(err.Error(), "no blob image") {
		t.Errorf("got %v", err)
	}
}

func TestWrongHostKey(t *testing.T) {
	s, target, _ := setup(t)
	target.Trust = Pinned(newKey(t).PublicKey())
	_, err := Connect(t.Context(), s, target)
	var wrong *HostKeyError
	if !errors.As(err, &wrong) || wrong.Got != ssh.FingerprintSHA256(s.host.PublicKey()) {
		t.Fatalf("got %v", err)
	}
	s.wg.Wait()
	if n := s.auths.Load(); n != 0 {
		t.Errorf("%d authentication requests reached the impostor", n)
	}
	if _, err := Connect(t.Context(), s, Target{Addr: "x:22", Auth: target.Auth}); err == nil {
		t.Error("a target without trust was connected to")
	}
}

func TestRefusedLogin(t *testing.T) {
	s, target, _ := setup(t)
	target.Auth = newKey(t)
	_, err := Connect(t.Context(), s, target)
	var auth *AuthError
	if !errors.As(err, &auth) {
		t.Fatalf("got %v", err)
	}
}

func TestHalfOpenConnectionDies(t *testing.T) {
	a := agentFile(t)
	synctest.Test(t, func(t *testing.T) {
		s, target, _ := setup(t)
		s.run = func(_ string, ch ssh.Channel) uint32 {
			fmt.Fprintln(ch, "HAVE")
			_, _ = io.Copy(io.Discard, ch)
			return 0
		}
		c, err := Connect(t.Context(), s, target)
		if err != nil {
			t.Fatal(err)
		}
		x, err := c.Exchange(t.Context(), a, nil)
		if err != nil {
			t.Fatal(err)
		}
		// A slow but living machine is not cut: it answers keepalives.
		slow, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		time.AfterFunc(5*time.Minute, func() { s.silent.Load().Store(true) })
		start := time.Now()
		err = x.Do(slow, Call{Op: spec.OpFacts})
		if err == nil || !strings.Contains(err.Error(), "has been silent") {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took < 5*time.Minute || took > 7*time.Minute {
			t.Errorf("given up after %s", took)
		}
		c.Close()
		s.wg.Wait()
	})
}

func TestLookNeverLogsIn(t *testing.T) {
	s, target, _ := setup(t)
	door := Look(t.Context(), s, target.Addr)
	if !door.Open || !SameKey(door.HostKey, s.host.PublicKey()) || door.Why != nil {
		t.Fatalf("%+v", door)
	}
	s.wg.Wait()
	if s.auths.Load() != 0 || s.logins.Load() != 0 {
		t.Error("a look reached authentication")
	}
}

func TestBootstrapRefusesWhatIsNoDigest(t *testing.T) {
	for _, a := range []Agent{{SHA256: "$(reboot)"}, {SHA256: strings.Repeat("a", 63)}} {
		if _, err := a.command(); err == nil {
			t.Errorf("%+v was put into a command", a)
		}
	}
}
