package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"popfleet/lab/netns"
)

// process is a running QEMU, started by us or by a former lab.
type process struct {
	pid  int
	qmp  *qmp
	wait func() // reaps a child; nothing for one we took over
}

// startQEMU starts QEMU in dir inside the namespace and returns when it listens to us. It is in a session of its own, so
// neither our end nor our terminal's ends it.
func startQEMU(ctx context.Context, ns *netns.Namespace, dir string, args []string) (*process, error) {
	cmd := exec.Command(binary, args...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	errs, err := os.OpenFile(filepath.Join(dir, "qemu.log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer errs.Close()
	cmd.Stdout, cmd.Stderr = errs, errs
	os.Remove(filepath.Join(dir, qmpSock))
	if err := ns.Start(cmd); err != nil {
		return nil, fmt.Errorf("start qemu: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	q, err := awaitQMP(ctx, dir, ended)
	if err != nil {
		cmd.Process.Kill()
		<-ended
		said, _ := os.ReadFile(filepath.Join(dir, "qemu.log"))
		return nil, fmt.Errorf("start qemu: %w: %s", err, bytes.TrimSpace(said))
	}
	return &process{pid: cmd.Process.Pid, qmp: q, wait: func() { <-ended }}, nil
}

func awaitQMP(ctx context.Context, dir string, ended <-chan struct{}) (*qmp, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		q, err := dialQMP(ctx, dir)
		if err == nil {
			return q, nil
		}
		select {
		case <-ended:
			return nil, errors.New("it ended at once")
		case <-ctx.Done():
			return nil, err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// reattach takes over the QEMU that runs in dir, if one does.
func reattach(ctx context.Context, dir string) (*process, error) {
	pid, ok := runningIn(dir)
	if !ok {
		return nil, nil
	}
	q, err := dialQMP(ctx, dir)
	if err != nil {
		if _, still := runningIn(dir); !still {
			return nil, nil
		}
		return nil, err
	}
	return &process{pid: pid, qmp: q, wait: func() { awaitGone(dir) }}, nil
}

// kill pulls the plug and returns when the process is gone.
func (p *process) kill() error {
	err := syscall.Kill(p.pid, syscall.SIGKILL)
	if err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill qemu %d: %w", p.pid, err)
	}
	<-p.qmp.done
	p.wait()
	return nil
}

// leave closes our side; QEMU goes on.
func (p *process) leave() {
	p.qmp.conn.Close()
	<-p.qmp.done
}

// runningIn is the process whose pidfile is in dir, if it is still that process: a QEMU that works in that folder.
func runningIn(dir string) (pid int, ok bool) {
	data, err := os.ReadFile(filepath.Join(dir, pidFile))
	if err != nil {
		return 0, false
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 1 {
		return 0, false
	}
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		return 0, false
	}
	real, err := filepath.EvalSymlinks(dir)
	return pid, err == nil && strings.TrimSuffix(cwd, " (deleted)") == real
}

// awaitGone returns when the QEMU of dir has ended; one that is stuck in the kernel is given up on.
func awaitGone(dir string) {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if _, ok := runningIn(dir); !ok {
			return
		}
	}
}

// KillAll ends every QEMU whose machine folder is under dir, attached or not, and says how many there were. It is for
// taking a lab down whose process died; the folders stay.
func KillAll(dir string) (int, error) {
	folders, err := filepath.Glob(filepath.Join(dir, "*", pidFile))
	if err != nil {
		return 0, err
	}
	killed := 0
	for _, f := range folders {
		pid, ok := runningIn(filepath.Dir(f))
		if !ok {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return killed, fmt.Errorf("kill qemu %d: %w", pid, err)
		}
		awaitGone(filepath.Dir(f))
		killed++
	}
	return killed, nil
}
