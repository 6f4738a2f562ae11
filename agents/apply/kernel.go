package apply

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"popfleet/playbooks/spec"
)

const (
	sysctlPath   = "/etc/sysctl.d/90-fleet.conf"
	nftablesPath = "/etc/nftables.conf" // what Debian's nftables.service loads at boot
)

// sysctl sets parameters now, through /proc/sys, and for every boot, through a file.
func (j *job) sysctl(context.Context) (work, error) {
	if len(j.want.Sysctl) == 0 {
		return work{}, nil
	}
	var w work
	kept, differs, err := j.rootFile(sysctlPath, sysctlFile(j.want.Sysctl))
	if err != nil {
		return w, err
	}
	if differs {
		w.changes = append(w.changes, kept)
	}
	for _, s := range j.want.Sysctl {
		now, err := j.tree.ReadFile(sysctlProc(s.Key))
		if errors.Is(err, fs.ErrNotExist) {
			return w, fmt.Errorf("sysctl %s: this kernel has no such parameter", s.Key)
		}
		if err != nil {
			return w, fmt.Errorf("sysctl %s: %w", s.Key, err)
		}
		have, want := words(string(now)), words(s.Value)
		if have != want {
			w.changes = append(w.changes, change{"sysctl " + s.Key, have + " → " + want, func(context.Context) error { return j.setSysctl(s) }})
		}
	}
	return w, nil
}

func sysctlProc(key string) string { return "proc/sys/" + strings.ReplaceAll(key, ".", "/") }

// words normalises what the kernel prints with tabs and people write with spaces.
func words(s string) string { return strings.Join(strings.Fields(s), " ") }

func sysctlFile(all []spec.Sysctl) []byte {
	var b bytes.Buffer
	b.WriteString("# Written by fleet-agent apply.\n")
	for _, s := range all {
		fmt.Fprintf(&b, "%s = %s\n", s.Key, s.Value)
	}
	return b.Bytes()
}

func (j *job) setSysctl(s spec.Sysctl) error {
	f, err := j.tree.OpenFile(sysctlProc(s.Key), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(s.Value + "\n")
	return err
}

// rootFile compares a file that apply itself owns: root:root 0644.
func (j *job) rootFile(p string, content []byte) (change, bool, error) {
	db, err := j.tree.accountDB()
	if err != nil {
		return change{}, false, err
	}
	c, differs, err := j.file(db, spec.File{Path: p, Mode: 0o644, Owner: "root", Group: "root", Content: content})
	if err != nil {
		return c, differs, fmt.Errorf("file %s: %w", p, err)
	}
	return c, differs, nil
}

// nftables keeps the ruleset in the file the boot loads and in the kernel. The kernel prints rules in its own words, so
// what it printed after our last load is remembered and compared: a rule added or lost since then is seen.
func (j *job) nftables(ctx context.Context) (work, error) {
	if j.want.Nftables == "" {
		return work{}, nil
	}
	c, differs, err := j.rootFile(nftablesPath, []byte(j.want.Nftables))
	if err != nil {
		return work{}, err
	}
	if !differs {
		live, err := j.listRuleset(ctx)
		if err != nil {
			return work{}, err
		}
		if live == j.state.Nftables {
			return work{}, nil
		}
		c.detail = "the kernel's ruleset is not the one loaded last"
	}
	return work{changes: []change{{"nftables", c.detail, func(ctx context.Context) error { return j.loadRuleset(ctx, c) }}}}, nil
}

// loadRuleset checks before it writes, so a bad ruleset never reaches the file that the next boot loads.
func (j *job) loadRuleset(ctx context.Context, file change) error {
	check := Command{Args: []string{"nft", "--check", "--file", "-"}, Stdin: []byte(j.want.Nftables)}
	if _, err := j.Runner.Run(ctx, check); err != nil {
		return err
	}
	if file.act != nil {
		if err := file.act(ctx); err != nil {
			return err
		}
	}
	if _, err := j.Runner.Run(ctx, Command{Args: []string{"nft", "--file", nftablesPath}}); err != nil {
		return err
	}
	live, err := j.listRuleset(ctx)
	if err != nil {
		return err
	}
	j.state.Nftables = live
	return j.state.save()
}

// listRuleset is a digest of the kernel's rules and of the text they are wanted to come from: killed between writing the
// file and loading it, the text is new, the rules are old, and the pair is not the one remembered.
func (j *job) listRuleset(ctx context.Context) (string, error) {
	out, err := j.Runner.Run(ctx, Command{Args: []string{"nft", "--stateless", "list", "ruleset"}})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", sha256.Sum256(append(out, j.want.Nftables...))), nil
}
