package certs

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"popfleet/transport/certtest"
)

func TestFollowsTheFiles(t *testing.T) {
	dir := t.TempDir()
	ca := certtest.NewCA(t)
	first, second := ca.Leaf(t, "popfleet://demo/transport/fsn-1"), ca.Leaf(t, "popfleet://demo/transport/fsn-1", "demo.test")
	var p Paths
	p.Cert, p.Key, p.CA = ca.Files(t, dir, first)
	s, err := Load(p)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); s.Watch(ctx, slog.New(slog.DiscardHandler)) }()
		holds := func(when string, want []byte) {
			t.Helper()
			tick := lookEvery + 1
			wait, stop := context.WithTimeout(ctx, tick)
			<-wait.Done()
			stop()
			synctest.Wait()
			if !bytes.Equal(s.Certificate().Certificate[0], want) {
				t.Errorf("%s: another certificate is in force", when)
			}
		}
		holds("unchanged", first.Certificate[0])
		if err := os.WriteFile(p.Key, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		holds("half written", first.Certificate[0])
		ca.Files(t, dir, second)
		holds("replaced", second.Certificate[0])
		if err := os.Remove(p.CA); err != nil {
			t.Fatal(err)
		}
		holds("ca gone", second.Certificate[0])
		cancel()
		<-done
	})
}

func TestEndedIsSaidAndNotFatal(t *testing.T) {
	ca := certtest.NewCA(t)
	var p Paths
	p.Cert, p.Key, p.CA = ca.Files(t, t.TempDir(), ca.Leaf(t, "popfleet://demo/transport/fsn-1")) // lives an hour
	s, err := Load(p)
	if err != nil || s.Ended() != nil {
		t.Fatal(err, s.Ended())
	}
	s.current.Load().cert.Leaf.NotAfter = s.NotAfter().AddDate(0, 0, -1)
	if err := s.Ended(); err == nil {
		t.Error("not said")
	}
}

func TestLoadSaysWhich(t *testing.T) {
	if _, err := Load(Paths{Cert: filepath.Join(t.TempDir(), "no.crt"), Key: "no.key", CA: "no.ca"}); err == nil {
		t.Error("loaded")
	}
}
