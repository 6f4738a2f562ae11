package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Adopt puts a copy of a ready-made archive into the cache as the image of o, in place of what is there: an image that
// was built elsewhere by the same recipe, for machines that may not build (and for tests, whose machines boot nothing).
func Adopt(ctx context.Context, o Options, archive string) (Image, error) {
	o, err := o.withDefaults()
	if err != nil {
		return Image{}, err
	}
	recipe, err := o.recipe()
	if err != nil {
		return Image{}, err
	}
	unlock, err := lock(ctx, o.CacheDir)
	if err != nil {
		return Image{}, err
	}
	defer unlock()
	dir := filepath.Join(o.CacheDir, "image", recipe[:16])
	img, err := place(archive, recipe, dir)
	if err != nil {
		return Image{}, fmt.Errorf("image: adopt %s: %w", archive, err)
	}
	return img, nil
}

// place fills a folder beside dir and swaps it in.
func place(archive, recipe, dir string) (Image, error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return Image{}, err
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), "adopt-")
	if err != nil {
		return Image{}, err
	}
	defer os.RemoveAll(work)
	data, err := os.ReadFile(archive)
	if err != nil {
		return Image{}, err
	}
	if err := os.WriteFile(filepath.Join(work, "image.tar.zst"), data, 0o644); err != nil {
		return Image{}, err
	}
	sum, size, err := digest(filepath.Join(work, "image.tar.zst"))
	if err != nil {
		return Image{}, err
	}
	img := Image{SHA256: sum, SizeBytes: size, Recipe: recipe, Built: time.Now().UTC()}
	text, err := json.MarshalIndent(img, "", "  ")
	if err != nil {
		return Image{}, err
	}
	err = errors.Join(os.WriteFile(filepath.Join(work, "image.json"), append(text, '\n'), 0o644),
		os.Chmod(work, 0o755), os.RemoveAll(dir), os.Rename(work, dir))
	img.Path = filepath.Join(dir, "image.tar.zst")
	return img, err
}
