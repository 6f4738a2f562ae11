// Package debian finds where this machine gets Debian from, so that what is built on it comes from the same mirrors. It
// only reads apt's configuration.
package debian

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// Suite is the release that rescue system and image are made of.
const Suite = "bookworm"

// EnvMirror names a mirror to use instead, such as a snapshot that pins every version.
const EnvMirror = "FLEET_DEBIAN_MIRROR"

// What a machine that is not Debian takes.
const (
	defaultMirror   = "http://deb.debian.org/debian"
	defaultSecurity = "http://deb.debian.org/debian-security"
)

const askTimeout = 10 * time.Second

// Mirrors returns the mirror of the suite, and of its security updates; "" when this machine has a mirror of its own and
// none of those.
func Mirrors(ctx context.Context) (main, security string) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)", "Created-By: Packages").Output()
	if err == nil {
		main, security = parseTargets(string(out))
	}
	if m := os.Getenv(EnvMirror); m != "" {
		return m, security
	}
	if main == "" {
		return defaultMirror, defaultSecurity
	}
	return main, security
}

// parseTargets reads lines "release component uri" of apt-get indextargets.
func parseTargets(targets string) (main, security string) {
	for line := range strings.Lines(targets) {
		f := strings.Fields(line)
		if len(f) != 3 || f[1] != "main" || !slices.Contains([]string{"http", "https"}, scheme(f[2])) {
			continue
		}
		uri := strings.TrimSuffix(f[2], "/")
		switch {
		case f[0] == Suite && main == "":
			main = uri
		case f[0] == Suite+"-security" && security == "":
			security = uri
		}
	}
	return main, security
}

func scheme(uri string) string { s, _, _ := strings.Cut(uri, "://"); return s }

// AptSettings is how this machine's apt reaches its mirrors (proxies, checks of age), as a configuration file.
func AptSettings(ctx context.Context) []byte {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, "apt-config", "dump").Output()
	if err != nil {
		return nil // not Debian: apt's own defaults
	}
	var keep bytes.Buffer
	for line := range bytes.Lines(out) {
		if bytes.HasPrefix(line, []byte("Acquire::")) && !bytes.HasPrefix(line, []byte("Acquire::Changelogs")) {
			keep.Write(line)
		}
	}
	return keep.Bytes()
}
