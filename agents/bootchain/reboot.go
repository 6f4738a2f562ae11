package bootchain

import (
	"os/exec"
	"syscall"
)

// RebootSoon has the machine reboot in two seconds, so that the answer to whoever asked still gets out. The waiting
// process is in a session of its own: the end of the connection does not stop it. Only a rescue system is made to when
// its systemd refuses or is none; on a node a refusal is meant (package bootkeep).
func RebootSoon(rescue bool) error {
	script := "sleep 2; systemctl reboot"
	if rescue {
		script += " || reboot -f"
	}
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}
