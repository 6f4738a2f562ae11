package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"popfleet/lab"
)

func (c *command) up() *cobra.Command {
	foreground := false
	cmd := &cobra.Command{
		Use: "up", Short: "start the lab, or find it up", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if foreground {
				return c.run(cmd.Context())
			}
			return c.start(cmd)
		},
	}
	f, d := cmd.Flags(), &c.cfg
	f.BoolVar(&foreground, "foreground", false, "stay in this terminal; machines go on when it ends, until fleet-lab down")
	f.StringVar(&d.API, "api", d.API, "address of Hetzner Cloud's API")
	f.IntVar(&d.Robot, "robot", 0, "so many dedicated machines at Hetzner Robot")
	f.StringVar(&d.RobotAPI, "robot-api", d.RobotAPI, "address of Hetzner Robot's API")
	f.IntVar(&d.OVH, "ovh", 0, "so many dedicated machines at OVH")
	f.StringVar(&d.OVHAPI, "ovh-api", d.OVHAPI, "address of OVH's API")
	f.StringVar(&d.Firmware, "firmware", "", "of dedicated machines: bios, uefi or mixed; empty is BIOS at Robot, UEFI at OVH")
	f.BoolVar(&d.Bare, "bare", false, "give dedicated machines AHCI and an Intel NIC: the cloud kernel can't drive them, linux-image-amd64 can")
	f.IntVar(&d.Disks, "disks", d.Disks, "disks of a dedicated machine: 1 or 2")
	f.StringVar(&d.Socks, "socks", d.Socks, "address of the SOCKS5 door to the machines")
	f.StringVar(&d.Forward, "forward", d.Forward, "address that leads to port 443 of the machines; empty for none")
	f.StringVar(&d.Token, "token", d.Token, "the API token")
	f.BoolVar(&d.Scripted, "scripted", false, "played machines instead of QEMU: needs no root")
	f.StringVar(&d.Namespace, "namespace", d.Namespace, "network namespace of the machines")
	f.StringVar(&d.CacheDir, "cache", d.CacheDir, "cache of the rescue system")
	f.StringVar(&d.Accel, "accel", d.Accel, "tcg or kvm; empty finds out")
	f.BoolVar(&d.Durable, "durable", false, "flush the machines' disks to the host's")
	f.IntVar(&d.CPUs, "cpus", d.CPUs, "CPUs of a machine")
	f.IntVar(&d.MemoryMB, "memory", d.MemoryMB, "memory of a machine in MB")
	f.IntVar(&d.DiskGB, "disk", d.DiskGB, "size of a machine's disk in GB (sparse)")
	f.Float64Var(&d.Speed, "speed", d.Speed, "pace of API actions: 10 is ten times the provider's")
	return cmd
}

// run is the lab itself.
func (c *command) run(ctx context.Context) error {
	return lab.Run(ctx, c.cfg, lab.Deps{
		Log: c.log, Version: c.version,
		Ready: func(s lab.Status) { c.say("lab is up: %s machines, API %s", s.Kind, s.API) },
		Progress: func(step string, took time.Duration) {
			if took == 0 {
				c.say("  %s …", step)
				return
			}
			c.say("  %s: %.1f s", step, took.Seconds())
		},
	})
}

// start runs the lab as a process of its own and waits until it serves.
func (c *command) start(cmd *cobra.Command) error {
	ctx := cmd.Context()
	if s, err := c.client().Status(ctx); err == nil {
		c.say("the lab is up already (pid %d)", s.Pid)
		return c.show(s)
	}
	if err := c.cfg.Validate(); err != nil {
		return err
	}
	if err := os.MkdirAll(c.cfg.Dir, 0o700); err != nil {
		return err
	}
	logs, err := os.OpenFile(c.cfg.LogPath(), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer logs.Close()
	from, err := logs.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	child, err := c.spawn(cmd, logs)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	return c.await(ctx, child, ended, from)
}

func (c *command) spawn(cmd *cobra.Command, logs *os.File) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{"up", "--foreground", "--dir", c.cfg.Dir}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if f.Name != "dir" && f.Name != "foreground" && f.Name != "json" {
			args = append(args, "--"+f.Name+"="+f.Value.String())
		}
	})
	child := exec.Command(self, args...)
	child.Stdout, child.Stderr = logs, logs
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		return nil, fmt.Errorf("start the lab: %w", err)
	}
	return child, nil
}

// await shows the lab's log until it answers, or ends.
func (c *command) await(ctx context.Context, child *exec.Cmd, ended <-chan error, from int64) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		from = c.showLog(from)
		select {
		case err := <-ended:
			c.showLog(from)
			return fmt.Errorf("the lab ended: %w (log: %s)", errors.Join(err, errors.New("it did not start")), c.cfg.LogPath())
		case <-ctx.Done():
			_ = child.Process.Signal(syscall.SIGTERM) // it may have ended
			return ctx.Err()
		case <-tick.C:
		}
		if s, err := c.client().Status(ctx); err == nil {
			c.showLog(from)
			return c.show(s)
		}
	}
}

func (c *command) showLog(from int64) int64 {
	f, err := os.Open(c.cfg.LogPath())
	if err != nil {
		return from
	}
	defer f.Close()
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return from
	}
	n, _ := io.Copy(c.Err, f) // what can't be shown now is in the log
	return from + n
}
