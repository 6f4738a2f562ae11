package bootchain

import (
	"os/exec"
	"syscall"
)

// RebootSoon has the machine reboot in two seconds, so that the answer to whoever asked still gets out. The waiting
// process is in a session of its own: the end of the connection does not stop it.
func RebootSoon() error {
	cmd := exec.Command("/bin/sh", "-c", "sleep 2; systemctl reboot || reboot -f")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}
