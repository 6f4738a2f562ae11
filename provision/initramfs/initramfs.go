// Package initramfs holds what the image puts into its initramfs: the network script that never gives up, the unlock
// service's start, the hook and the list of modules. Files only; provision/image installs them.
package initramfs

import "embed"

// Files are the scripts, below "files".
//
//go:embed files
var Files embed.FS
