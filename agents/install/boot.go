package install

import (
	"context"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"popfleet/agents/bootchain"
	"popfleet/agents/hostkey"
	"popfleet/playbooks/spec"
)

// emulatedArgs spare an emulated processor what protects a real one, and give its services the time they need.
const emulatedArgs = "set extra=\"mitigations=off nokaslr no_timer_check tsc=reliable systemd.default_timeout_start_sec=600\"\n"

// boot makes the host keys, the per-node part of the initramfs and the boot loaders of every disk.
func (j *job) boot(context.Context) error {
	system, err := hostkey.Ensure(filepath.Join(j.root, hostkey.SystemFile))
	if err != nil {
		return err
	}
	initramfs, err := hostkey.Ensure(filepath.Join(j.root, hostkey.InitramfsFile))
	if err != nil {
		return err
	}
	node := bootchain.Node{Network: j.network, AuthorizedKeys: j.spec.AuthorizedKeys, LUKSUUID: j.luksUUID}
	if err := node.Save(j.root); err != nil {
		return err
	}
	if _, err := bootchain.WriteNodePart(j.root, initramfs.Private); err != nil {
		return err
	}
	if j.spec.Emulated {
		extra := filepath.Join(j.root, "boot/grub/extra.cfg")
		if err := bootchain.WriteFile(extra, []byte(emulatedArgs), 0o644); err != nil {
			return err
		}
	}
	loaders, err := bootchain.ReadLoaders(j.root)
	if err != nil {
		return err
	}
	for _, t := range j.targets {
		if err := loaders.Install(t.Disk, filepath.Join(filepath.Dir(j.root), "esp")); err != nil {
			return fmt.Errorf("boot loader of disk %s: %w", t.Serial, err)
		}
	}
	j.result = spec.Installed{
		Run: j.spec.Run, Wiped: j.wiped, Network: j.network, LUKSUUID: j.luksUUID,
		InitramfsHostKey: initramfs.Authorized(), SystemHostKey: system.Authorized(),
	}
	return bootchain.Check(j.root)
}

// finish closes everything, so that the keys leave this machine's kernel and the disks are whole.
func (j *job) finish(ctx context.Context) error {
	for _, t := range j.targets {
		d := t.Disk
		d.Marker, d.Content = j.spec.Run, "fleet node "+j.spec.Node
		j.result.Disks = append(j.result.Disks, d)
	}
	unix.Sync()
	if err := j.unmountOurs(); err != nil {
		return err
	}
	if err := j.luks.Close(ctx, mapping); err != nil {
		return err
	}
	if len(j.targets) > 1 {
		j.attempt(ctx, "mdadm", "--stop", "--scan")
	}
	unix.Sync()
	return nil
}
