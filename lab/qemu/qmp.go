package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// qmp speaks QEMU's machine protocol. Its end of file is the end of the process.
type qmp struct {
	conn net.Conn
	done chan struct{} // closed at end of file

	mu       sync.Mutex
	next     int
	waiting  map[int]chan reply
	shutdown string // reason of the last SHUTDOWN event: guest-reset, guest-shutdown, host-qmp-quit, host-signal …
}

type reply struct {
	ID     int             `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Event string `json:"event"`
	Data  struct {
		Reason string `json:"reason"`
	} `json:"data"`
}

// dialQMP connects to the socket in a machine's folder, by a short path whatever the folder's is.
func dialQMP(ctx context.Context, dir string) (*qmp, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), qmpSock))
	if err != nil {
		return nil, fmt.Errorf("qmp of %s: %w", filepath.Base(dir), err)
	}
	q := &qmp{conn: conn, done: make(chan struct{}), waiting: map[int]chan reply{}}
	go q.read()
	if _, err := q.call(ctx, "qmp_capabilities", nil); err != nil {
		conn.Close()
		<-q.done
		return nil, err
	}
	return q, nil
}

// call sends a command and waits for its answer, at most ten seconds.
func (q *qmp) call(ctx context.Context, command string, args any) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	ch := make(chan reply, 1)
	q.mu.Lock()
	q.next++
	id := q.next
	q.waiting[id] = ch
	q.mu.Unlock()
	defer q.forget(id)
	msg, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        int    `json:"id"`
	}{command, args, id})
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	q.conn.SetWriteDeadline(deadline)
	if _, err := q.conn.Write(append(msg, '\n')); err != nil {
		return nil, fmt.Errorf("qmp %s: %w", command, err)
	}
	select {
	case r := <-ch:
		if r.Error != nil {
			return nil, fmt.Errorf("qmp %s: %s: %s", command, r.Error.Class, r.Error.Desc)
		}
		return r.Return, nil
	case <-q.done:
		return nil, fmt.Errorf("qmp %s: %w", command, errors.New("qemu ended"))
	case <-ctx.Done():
		return nil, fmt.Errorf("qmp %s: %w", command, ctx.Err())
	}
}

func (q *qmp) forget(id int) {
	q.mu.Lock()
	delete(q.waiting, id)
	q.mu.Unlock()
}

func (q *qmp) read() {
	defer close(q.done)
	lines := bufio.NewScanner(q.conn)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r reply
		if json.Unmarshal(lines.Bytes(), &r) != nil {
			continue
		}
		q.mu.Lock()
		if r.Event == "SHUTDOWN" {
			q.shutdown = r.Data.Reason
		}
		if ch, ok := q.waiting[r.ID]; ok && r.Event == "" {
			ch <- r
			delete(q.waiting, r.ID)
		}
		q.mu.Unlock()
	}
}

// reason is why QEMU ended, as far as it said.
func (q *qmp) reason() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.shutdown
}
