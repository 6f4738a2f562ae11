//go:build e2e

package netns

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// TestNamespace needs root. Its namespace is its own, beside whatever lab is up.
func TestNamespace(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	name := fmt.Sprintf("lab-test-%d", os.Getpid())
	t.Cleanup(func() { Delete(context.Background(), name) })
	n, err := Create(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	if n, err = Create(ctx, name); err != nil {
		t.Fatalf("again: %v", err)
	}
	for range 2 {
		if err := n.AddTap(ctx, "tapx"); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("reach in", func(t *testing.T) { reachIn(ctx, t, n) })
	t.Run("nothing leaves", func(t *testing.T) {
		var out bytes.Buffer
		if err := n.Exec(ctx, nil, &out, &out, "ip", "-o", "link"); err != nil {
			t.Fatal(err)
		}
		if links := strings.Count(out.String(), "\n"); links != 3 {
			t.Errorf("links besides lo, the bridge and one tap:\n%s", &out)
		}
		for _, outside := range []string{"192.0.2.1:80", "[2001:db8:ffff::1]:80"} {
			if c, err := n.Dial(ctx, "tcp", outside); err == nil {
				c.Close()
				t.Errorf("%s was reached", outside)
			}
		}
	})
	t.Run("host is untouched", func(t *testing.T) {
		if _, err := net.InterfaceByName(Bridge); err == nil {
			t.Error("the bridge is on the host")
		}
	})
	if err := n.DeleteTap(ctx, "tapx"); err != nil {
		t.Error(err)
	}
	if err := Delete(ctx, name); err != nil || Exists(name) {
		t.Errorf("still there: %v", err)
	}
}

// reachIn talks to a listener inside, and checks that the host's own loopback is another one.
func reachIn(ctx context.Context, t *testing.T, n *Namespace) {
	l, err := n.Listen(ctx, "tcp", Lab.String()+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err == nil {
			io.WriteString(c, "inside")
			c.Close()
		}
	}()
	c, err := n.Dial(ctx, "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, err := io.ReadAll(c)
	if err != nil || string(got) != "inside" {
		t.Errorf("%q, %v", got, err)
	}
	if c, err := net.DialTimeout("tcp", l.Addr().String(), time.Second); err == nil {
		c.Close()
		t.Error("the host reaches the lab's address without the namespace")
	}
}

// TestDeleteAtOnce: the daemon that ends and the command that waits for its end both remove the namespace.
func TestDeleteAtOnce(t *testing.T) {
	for range 10 {
		if _, err := Create(t.Context(), "fleet-twice"); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 4)
		for range cap(done) {
			go func() { done <- Delete(t.Context(), "fleet-twice") }()
		}
		for range cap(done) {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if Exists("fleet-twice") {
			t.Fatal("it is still there")
		}
	}
}
