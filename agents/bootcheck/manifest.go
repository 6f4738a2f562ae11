package bootcheck

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"popfleet/agents/bootchain"
	"popfleet/agents/disk"
	"popfleet/agents/fat"
	"popfleet/playbooks/spec"
)

const maxManifestFiles = 5000

// Manifest hashes all that runs before the root is open: the files of /boot, the loaders in front of them on every disk
// of the node. Times, owners, the state of mirrors and the LUKS header, whose slots are exchanged, are not in it.
func (c Checker) Manifest(ctx context.Context) (spec.BootManifest, error) {
	if _, err := c.bootDevice(ctx); err != nil {
		return spec.BootManifest{}, fmt.Errorf("boot manifest: %w", err)
	}
	disks, err := c.Disks()
	if err != nil {
		return spec.BootManifest{}, err
	}
	m := &manifest{}
	errs := []error{m.tree(c.path("/boot"))}
	for _, d := range disks {
		if err := m.disk(c, d); err != nil {
			errs = append(errs, fmt.Errorf("disk %s: %w", d.Serial, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return spec.BootManifest{}, fmt.Errorf("boot manifest: %w", err)
	}
	return m.done(), nil
}

type manifest struct{ files []spec.BootFile }

func (m *manifest) add(path string, r io.Reader) error {
	if len(m.files) >= maxManifestFiles {
		return fmt.Errorf("more than %d files", maxManifestFiles)
	}
	h := sha256.New()
	size, err := io.Copy(h, r)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	m.files = append(m.files, spec.BootFile{Path: path, SizeBytes: size, SHA256: hex.EncodeToString(h.Sum(nil))})
	return nil
}

func (m *manifest) tree(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		f, err := root.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return m.add(filepath.Join("boot", path), f)
	})
}

// disk adds the boot code, the whole BIOS boot partition and the files of the ESP.
func (m *manifest) disk(c Checker, d spec.Disk) error {
	whole, err := c.open(d.Path)
	if err != nil {
		return err
	}
	defer whole.Close()
	first, sizeBytes, err := c.partition(d, disk.PartBIOS)
	if err != nil {
		return err
	}
	name := "disk " + d.Serial
	if err := m.add(name+"/mbr", io.NewSectionReader(whole, 0, bootchain.BootCodeEnd)); err != nil {
		return err
	}
	if err := m.add(name+"/bios-boot", io.NewSectionReader(whole, int64(first)*512, sizeBytes)); err != nil {
		return err
	}
	esp, err := c.open(disk.Partition(d.Path, disk.PartESP))
	if err != nil {
		return err
	}
	defer esp.Close()
	fs, err := fat.Open(esp)
	if err != nil {
		return err
	}
	files, err := fs.Files()
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := m.add(name+"/esp/"+f.Path, f.Open()); err != nil {
			return err
		}
	}
	return nil
}

func (m *manifest) done() spec.BootManifest {
	slices.SortFunc(m.files, func(a, b spec.BootFile) int { return cmp.Compare(a.Path, b.Path) })
	h := sha256.New()
	for _, f := range m.files {
		fmt.Fprintf(h, "%q %d %s\n", f.Path, f.SizeBytes, f.SHA256)
	}
	return spec.BootManifest{Files: m.files, Digest: hex.EncodeToString(h.Sum(nil))}
}
