//go:build e2e

package image

import (
	"os"
	"testing"
	"time"
)

// TestBuild builds the image into the user's cache, or finds it there, and prints its figures. It needs root, a Debian
// mirror, and minutes.
func TestBuild(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	began := time.Now()
	img, err := Ensure(t.Context(), Options{}, func(step string) { t.Logf("%6.1f s  %s", time.Since(began).Seconds(), step) })
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %d MB, %d packages, built in %.0f s", img.Path, img.SizeBytes>>20, len(img.Manifest), img.Seconds)
	if img.SizeBytes > 110<<20 {
		t.Errorf("the image has %d bytes: an emulated machine needs it under 110 MiB", img.SizeBytes)
	}
	again, err := Ensure(t.Context(), Options{}, func(step string) { t.Errorf("built again: %s", step) })
	if err != nil || again.SHA256 != img.SHA256 {
		t.Errorf("a second Ensure: %v, digest %s after %s", err, again.SHA256, img.SHA256)
	}
}
