// Package initramfs holds the scripts that the image's generic initramfs is made with: the network and the unlock over
// SSH before the root is open, and the drivers a machine may need for it. They run in the initramfs' own shell; nothing
// here does anything by itself.
package initramfs

import (
	"embed"
	"io/fs"
)

//go:embed files
var files embed.FS

// Files are the scripts, by name.
func Files() fs.FS {
	sub, err := fs.Sub(files, "files")
	if err != nil {
		panic("initramfs: the embedded folder is missing: " + err.Error())
	}
	return sub
}
