package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"popfleet/agents/command"
	"popfleet/agents/disk"
	"popfleet/agents/facts"
	"popfleet/agents/luks"
	"popfleet/internal/pace"
	"popfleet/playbooks/spec"
)

// mapping is the device-mapper name of the opened root.
const mapping = "fleet-root"

// step is one part of the installation. done looks at the machine, never at a record; do may be cut anywhere and is
// then run again from its start.
type step struct {
	name string
	done func(context.Context) (bool, error)
	do   func(context.Context) error
}

// job is one installation in progress.
type job struct {
	spec  spec.Install
	host  facts.Host
	run   command.Runner
	luks  luks.Tool
	log   *slog.Logger
	emit  func(spec.Event)
	image func(context.Context) (io.ReadCloser, error) // the image's bytes from their start; the caller closes
	root  string                                       // where the new system is mounted

	targets  []target
	wiped    []string
	network  spec.Network
	bootDev  string // /boot: a partition or an array
	rootDev  string // the LUKS device
	luksUUID string
	result   spec.Installed
}

func (j *job) steps() []step {
	return []step{
		{"guards", j.never, j.guards},
		{"partition", j.partitioned, j.partition},
		{"arrays", j.never, j.arrays},
		{"encrypt", j.never, j.encrypt},
		{"image", j.unpacked, j.unpack},
		{"configure", j.never, j.configure},
		{"boot", j.never, j.boot},
		{"finish", j.never, j.finish},
	}
}

// never is the done of a step that is cheap and looks by itself at what is there.
func (j *job) never(context.Context) (bool, error) { return false, nil }

// install runs the steps in order.
func (j *job) install(ctx context.Context) (spec.Installed, error) {
	for _, s := range j.steps() {
		began := time.Now()
		j.emit(spec.Event{Kind: spec.KindStep, Step: s.name, Status: "doing"})
		done, err := s.done(ctx)
		if err == nil && done {
			j.emit(spec.Event{Kind: spec.KindStep, Step: s.name, Status: "skipped"})
			continue
		}
		if err == nil {
			err = s.do(ctx)
		}
		if err != nil {
			return spec.Installed{}, fmt.Errorf("%s: %w", s.name, err)
		}
		took := time.Since(began).Round(100 * time.Millisecond)
		j.log.Info("step done", "step", s.name, "took", took)
		j.emit(spec.Event{Kind: spec.KindStep, Step: s.name, Status: "done", Text: took.String()})
	}
	return j.result, nil
}

// guards proves that this machine may be installed and learns what the steps need to know of it.
func (j *job) guards(context.Context) error {
	if ok, why := j.host.Rescue(); !ok {
		return &spec.Error{Code: spec.CodeNotRescue, Message: "this machine is not in a rescue system: " + why,
			Hint: "the provider's rescue may have been enabled without being booted; run `fleet up` again"}
	}
	disks, err := disk.Host{Root: j.host.Root}.List()
	if err != nil {
		return err
	}
	if j.targets, err = choose(j.spec, disks); err != nil {
		return err
	}
	if err := j.unmountOurs(); err != nil {
		return err
	}
	for _, t := range j.targets {
		used, err := j.host.OnDisk(filepath.Base(t.Path))
		if err != nil {
			return err
		}
		if used {
			return &spec.Error{Code: spec.CodeNotRescue, Message: fmt.Sprintf("a file system of the running system lies on disk %s (%s)", t.Serial, t.Path),
				Hint: "unmount it, or boot the rescue system again"}
		}
	}
	if j.spec.Network != nil {
		j.network = *j.spec.Network
		return nil
	}
	j.network, err = j.host.Network()
	return err
}

// pace is how much slower than hardware this machine is.
func (j *job) pace() pace.Pace {
	if j.spec.Emulated {
		return pace.Emulated
	}
	return pace.Real
}

func (j *job) exec(ctx context.Context, argv ...string) error {
	_, err := j.run.Run(ctx, command.Cmd{Argv: argv, Timeout: j.pace().Of(2 * time.Minute)})
	return err
}

// attempt runs what may fail without meaning anything, and notes it.
func (j *job) attempt(ctx context.Context, argv ...string) {
	if err := j.exec(ctx, argv...); err != nil {
		j.log.Debug("attempt", "error", err)
	}
}

// waitFor waits for a device node that udev makes.
func (j *job) waitFor(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, j.pace().Of(30*time.Second))
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(path); err == nil || !errors.Is(err, os.ErrNotExist) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", path, ctx.Err())
		case <-tick.C:
		}
	}
}
