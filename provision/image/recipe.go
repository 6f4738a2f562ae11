package image

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"

	"popfleet/provision/initramfs"
)

// recipe is the digest of everything that decides what is built: the options that name content, the script and all
// files. Mirrors are not in it: they hold the same packages.
func (o Options) recipe() (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "suite %s\nflavour %s\n", o.Suite, o.Flavour)
	for _, from := range []fs.FS{recipeFiles, initramfs.Files()} {
		err := fs.WalkDir(from, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := fs.ReadFile(from, path)
			fmt.Fprintf(h, "file %s %d\n", path, len(data))
			h.Write(data)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
