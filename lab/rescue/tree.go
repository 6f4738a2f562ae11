package rescue

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// overlay writes src over the tree at root; every file is world-readable and not executable.
func overlay(src fs.FS, root string) error {
	return fs.WalkDir(src, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(root, path)
		if d.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		data, err := fs.ReadFile(src, path)
		if err != nil {
			return err
		}
		return os.WriteFile(to, data, 0o644)
	})
}

// emptyDir removes what is in dir and keeps dir; a folder that is not there is empty.
func emptyDir(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := os.RemoveAll(n); err != nil {
			return err
		}
	}
	return nil
}

// treeBytes is the space the files of a tree take in blocks of 4 KiB.
func treeBytes(root string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		sum += 4096
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			sum += (info.Size() + 4095) &^ 4095
		}
		return nil
	})
	return sum, err
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
