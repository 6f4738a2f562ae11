package install

import (
	"os"
	"testing"
)

// BenchmarkUnpack unpacks a real image: IMAGE=image.tar.zst DIR=/where/to go test -bench Unpack ./agents/install
func BenchmarkUnpack(b *testing.B) {
	image, dir := os.Getenv("IMAGE"), os.Getenv("DIR")
	if image == "" {
		b.Skip("IMAGE is not set")
	}
	for b.Loop() {
		f, err := os.Open(image)
		if err != nil {
			b.Fatal(err)
		}
		to, err := os.MkdirTemp(dir, "unpack")
		if err != nil {
			b.Fatal(err)
		}
		if err := unpackTo(to, f); err != nil {
			b.Fatal(err)
		}
		f.Close()
		os.RemoveAll(to)
	}
}
