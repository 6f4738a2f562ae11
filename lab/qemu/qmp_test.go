package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fakeQEMU listens in dir and answers each command with what answers says; "end" closes the connection.
func fakeQEMU(t *testing.T, dir string, answers map[string]string) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(dir, qmpSock))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		fmt.Fprintln(c, `{"QMP": {"version": {}, "capabilities": []}}`)
		for lines := bufio.NewScanner(c); lines.Scan(); {
			var q struct {
				Execute string
				ID      int
			}
			if json.Unmarshal(lines.Bytes(), &q) != nil || answers[q.Execute] == "end" {
				return
			}
			fmt.Fprintln(c, strings.ReplaceAll(answers[q.Execute], "ID", fmt.Sprint(q.ID)))
		}
	}()
}

func TestQMP(t *testing.T) {
	dir := t.TempDir()
	fakeQEMU(t, dir, map[string]string{
		"qmp_capabilities": `{"return": {}, "id": ID}`,
		"query-status":     "{\"event\": \"RESUME\", \"data\": {}}\nrubbish\n{\"return\": {\"status\": \"running\"}, \"id\": ID}",
		"bad":              `{"error": {"class": "CommandNotFound", "desc": "no such thing"}, "id": ID}`,
		"system_powerdown": "{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": \"guest-shutdown\"}}\n{\"return\": {}, \"id\": ID}",
		"quit":             "end",
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	q, err := dialQMP(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer q.conn.Close()
	if got, err := q.call(ctx, "query-status", nil); err != nil || !strings.Contains(string(got), "running") {
		t.Errorf("status %s, %v", got, err)
	}
	if _, err := q.call(ctx, "bad", map[string]int{"x": 1}); err == nil || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("error %v", err)
	}
	if _, err := q.call(ctx, "system_powerdown", nil); err != nil || q.reason() != "guest-shutdown" {
		t.Errorf("reason %q, %v", q.reason(), err)
	}
	if _, err := q.call(ctx, "quit", nil); err == nil {
		t.Error("an answer from a dead QEMU")
	}
	<-q.done
}

func TestQMPOfNobody(t *testing.T) {
	if _, err := dialQMP(t.Context(), t.TempDir()); err == nil {
		t.Error("connected to nothing")
	}
}
