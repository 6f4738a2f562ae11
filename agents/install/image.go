package install

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"popfleet/agents/bootchain"
	"popfleet/agents/disk"
	"popfleet/playbooks/spec"
)

// imageMark is written when an image is unpacked whole and its digest was right; it holds the digest. Without it the
// file systems are made anew.
const imageMark = "/etc/fleet/image"

// ext4Features are named one by one: a rescue system newer than the image would switch on features that the image's
// GRUB can't read.
const (
	bootFeatures = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize"
	rootFeatures = bootFeatures + ",64bit,metadata_csum"
)

func (j *job) unpacked(context.Context) (bool, error) {
	if err := j.mount(); err != nil {
		return false, nil // no file system of ours yet
	}
	have, err := os.ReadFile(filepath.Join(j.root, imageMark))
	return err == nil && string(have) == j.spec.Image.SHA256, nil
}

// unpack makes the file systems and streams the image onto them: digest, zstd and tar in one pass; a copy is kept for
// other nodes where there is room. A connection that is cut starts it over from clean file systems. So does a wrong
// digest, a few times: another node may have passed on something else, and the next stream is the operator's own
// (docs/protocols/exchange.md). Nothing could boot from what was unpacked before the digest was right.
func (j *job) unpack(ctx context.Context) error {
	for wrong := 0; ; {
		err := j.unpackOnce(ctx)
		var digest *spec.Error
		switch {
		case errors.Is(err, errCut):
			j.emit(spec.Event{Kind: spec.KindLog, Step: "image", Text: "the image's stream was cut; waiting for it again"})
		case errors.As(err, &digest) && digest.Code == spec.CodeDigest && wrong < maxWrong:
			wrong++
			j.emit(spec.Event{Kind: spec.KindLog, Step: "image", Text: digest.Message + "; waiting for it again"})
		default:
			return err
		}
	}
}

// maxWrong is how many wrong images are forgiven.
const maxWrong = 2

var errCut = errors.New("the image's stream was cut")

func (j *job) unpackOnce(ctx context.Context) error {
	if err := j.makeFilesystems(ctx); err != nil {
		return err
	}
	body, err := j.image(ctx)
	if err != nil {
		return err
	}
	defer body.Close()
	keep := j.keeper()
	defer keep.drop()
	in := &counted{r: body, want: j.spec.Image.SizeBytes, sum: sha256.New(), tell: j.imageProgress(), keep: keep}
	if err := unpackTo(j.root, in); err != nil {
		if in.n < in.want && (errors.Is(in.err, io.EOF) || errors.Is(in.err, unix.ECONNRESET)) {
			return errCut
		}
		if in.drain(); in.n == in.want && in.digest() != j.spec.Image.SHA256 {
			return j.wrongDigest(in.digest())
		}
		return fmt.Errorf("unpack the image: %w", err)
	}
	if in.drain(); in.n < in.want {
		return errCut
	}
	if in.digest() != j.spec.Image.SHA256 {
		return j.wrongDigest(in.digest())
	}
	if err := keep.whole(j.root); err != nil {
		j.emit(spec.Event{Kind: spec.KindLog, Step: "image", Text: fmt.Sprintf("no copy is kept for other nodes: %v", err)})
	}
	if err := j.leaveAgent(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(j.root, "etc/fleet"), 0o755); err != nil {
		return err
	}
	return bootchain.WriteFile(filepath.Join(j.root, imageMark), []byte(j.spec.Image.SHA256), 0o644)
}

func (j *job) wrongDigest(have string) error {
	return &spec.Error{Code: spec.CodeDigest, Message: fmt.Sprintf("the image arrived with digest %.12s, %.12s was announced", have, j.spec.Image.SHA256),
		Hint: "build the image again: its file on the operator's machine was changed or is damaged"}
}

func (j *job) imageProgress() func(int64) {
	last := time.Time{}
	return func(n int64) {
		if now := time.Now(); now.Sub(last) >= time.Second || n == j.spec.Image.SizeBytes {
			last = now
			j.emit(spec.Event{Kind: spec.KindProgress, Step: "image", Done: n, Total: j.spec.Image.SizeBytes})
		}
	}
}

func (j *job) makeFilesystems(ctx context.Context) error {
	if err := j.unmountOurs(); err != nil {
		return err
	}
	for _, t := range j.targets {
		if err := j.exec(ctx, "mkfs.vfat", "-F", "32", "-n", "FLEET-ESP", disk.Partition(t.Path, disk.PartESP)); err != nil {
			return err
		}
	}
	if err := j.exec(ctx, "mkfs.ext4", "-q", "-F", "-L", "fleet-boot", "-m", "0", "-O", bootFeatures, j.bootDev); err != nil {
		return err
	}
	if err := j.exec(ctx, "mkfs.ext4", "-q", "-F", "-L", "fleet-root", "-m", "1", "-O", rootFeatures, "/dev/mapper/"+mapping); err != nil {
		return err
	}
	return j.mount()
}

// mount puts the new system together at j.root; what is mounted already stays.
func (j *job) mount() error {
	for _, m := range []struct{ dev, at string }{{"/dev/mapper/" + mapping, ""}, {j.bootDev, "boot"}} {
		at := filepath.Join(j.root, m.at)
		if err := os.MkdirAll(at, 0o755); err != nil {
			return err
		}
		// noinit_itable: the kernel would fill the empty inode tables meanwhile, and encrypt every block of them
		err := unix.Mount(m.dev, at, "ext4", unix.MS_NOATIME, "noinit_itable")
		if err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.dev, err)
		}
	}
	return nil
}

// counted reads exactly want bytes at most, and remembers how many, their digest, and how the stream ended.
type counted struct {
	r       io.Reader
	n, want int64
	sum     hash.Hash
	err     error
	tell    func(int64)
	keep    *keeper
}

func (c *counted) Read(p []byte) (int, error) {
	if c.n == c.want {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), c.want-c.n)]
	n, err := c.r.Read(p)
	c.sum.Write(p[:n])
	c.keep.write(p[:n])
	c.n += int64(n)
	if err != nil {
		c.err = err
	}
	if c.tell != nil {
		c.tell(c.n)
	}
	return n, err
}

func (c *counted) drain() { _, _ = io.Copy(io.Discard, c) }

func (c *counted) digest() string { return hex.EncodeToString(c.sum.Sum(nil)) }

func unpackTo(root string, in io.Reader) error {
	z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(64<<20))
	if err != nil {
		return err
	}
	defer z.Close()
	dir, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer dir.Close()
	return untar(dir, z)
}
