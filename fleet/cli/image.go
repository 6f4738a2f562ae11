package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"popfleet/inventory"
	"popfleet/playbooks/spec"
	"popfleet/provision/image"
	"popfleet/provision/lifecycle"
)

// envCache names the folder for what is built once and kept; default: the user's cache folder.
const envCache = "FLEET_CACHE"

// imageOptions: every node is a clone, so one dedicated machine gives all of them the kernel that has its drivers; Debian's
// cloud kernel knows neither AHCI nor the network cards of real hardware, and half the size is worth it only without.
func (s *session) imageOptions() image.Options {
	o := image.Options{CacheDir: s.app.env.Getenv(envCache), Flavour: "cloud"}
	if slices.ContainsFunc(s.fleet.Resolved(), func(n inventory.Resolved) bool { return n.Machine.Dedicated() }) {
		o.Flavour = "amd64"
	}
	return o
}

// image gives lifecycle the base image; all nodes share one.
func (s *session) image(ctx context.Context) (lifecycle.Image, error) {
	s.imageOnce.Do(func() { s.imageFound, s.imageErr = s.ensureImage(ctx) })
	return s.imageFound, s.imageErr
}

// ensureImage builds the image on this machine when the cache has none.
func (s *session) ensureImage(ctx context.Context) (lifecycle.Image, error) {
	began := time.Now()
	i, err := image.Ensure(ctx, s.imageOptions(), func(step string) {
		s.app.out.event("image", "", map[string]any{"step": step, "after_sec": time.Since(began).Seconds()})
		if s.show != nil {
			s.show.tell("image", seconds(time.Since(began)), step)
		}
	})
	if err != nil {
		return lifecycle.Image{}, err
	}
	return lifecycle.Image{Blob: spec.Blob{SHA256: i.SHA256, SizeBytes: i.SizeBytes}, Blobs: imageBlob(i)}, nil
}

// imageDigest is what a plan can say of the image without building it.
func (s *session) imageDigest() (string, error) {
	i, err := image.Find(s.imageOptions())
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return i.SHA256, err
}

type imageBlob image.Image

// Open is remote.Blobs.
func (i imageBlob) Open(sha string) (io.ReadCloser, int64, error) {
	if sha != i.SHA256 {
		return nil, 0, fmt.Errorf("the machine asks for blob %s; only image %s was offered", sha, i.SHA256)
	}
	f, err := os.Open(i.Path)
	return f, i.SizeBytes, err
}
