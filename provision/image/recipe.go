package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"
	"time"

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

// aptMirrors asks this machine's apt which mirrors it uses for the suite and its security updates; empty when it does
// not know.
func aptMirrors(ctx context.Context, suite string) (mirror, security string) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(SITE) $(RELEASE) $(REPO_URI)", "Created-By: Packages").Output()
	if err != nil {
		return "", ""
	}
	return parseTargets(out, suite)
}

func parseTargets(out []byte, suite string) (mirror, security string) {
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) != 3 || !strings.HasPrefix(f[2], "http") {
			continue
		}
		uri := strings.TrimSuffix(f[2], "/")
		switch f[1] {
		case suite:
			mirror = uri
		case suite + "-security":
			security = uri
		}
	}
	return mirror, security
}

// aptSettings are how this machine reaches its mirrors (proxies, checks of age), borrowed while building.
func aptSettings(ctx context.Context) []byte {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "apt-config", "dump").Output()
	if err != nil {
		return nil
	}
	var keep bytes.Buffer
	for line := range bytes.Lines(out) {
		if bytes.HasPrefix(line, []byte("Acquire::")) && !bytes.HasPrefix(line, []byte("Acquire::Changelogs")) {
			keep.Write(line)
		}
	}
	return keep.Bytes()
}
