// Package debian finds where this machine gets Debian from, so that what is built on it comes from the same mirrors. It
// only reads apt's configuration.
package debian

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// Suite is the release that rescue system and image are made of.
const Suite = "bookworm"

// EnvMirror names a mirror to use instead, such as a snapshot that pins every version.
const EnvMirror = "FLEET_DEBIAN_MIRROR"

const defaultMirror = "http://deb.debian.org/debian"

// Mirrors returns the mirror of the suite, and of its security updates where this machine has one.
func Mirrors(ctx context.Context) (main, security string) {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)", "Created-By: Packages").Output()
	if err == nil {
		main, security = parseTargets(string(out))
	}
	if m := os.Getenv(EnvMirror); m != "" {
		return m, security
	}
	if main == "" {
		main = defaultMirror
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

// AptSettings is this machine's apt transport configuration (proxies, certificates), as a configuration file.
func AptSettings(ctx context.Context) ([]byte, error) {
	return exec.CommandContext(ctx, "apt-config", "dump", "Acquire").Output()
}
