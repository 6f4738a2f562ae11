package bootcheck

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"popfleet/agents/disk"
	"popfleet/playbooks/spec"
)

// header is the LUKS2 header under /.
func (n *node) header() (disk.LUKS2, error) {
	if n.rootErr != nil {
		return disk.LUKS2{}, n.rootErr
	}
	f, err := n.open("/dev/" + n.root.name)
	if err != nil {
		return disk.LUKS2{}, err
	}
	defer f.Close()
	return disk.ReadLUKS2(f)
}

// luksHeader looks at both copies of the header, and at both again on every member of a mirror: the kernel reads a
// mirror from whichever member it likes.
func luksHeader(_ context.Context, n *node) spec.BootProof {
	h, err := n.header()
	if err != nil {
		return failed("the disk may be dying: look at `fleet-agent probe`, and save the data first", "%v", err)
	}
	if want := "fleet/" + n.id.Node; h.Subsystem != want {
		return failed("this disk was installed for another node", "the header is of %q, not of %q", h.Subsystem, want)
	}
	if h.Damaged != "" {
		return failed("run `cryptsetup repair /dev/"+n.root.name+"`", "%s", h.Damaged)
	}
	if err := n.alike(h); err != nil {
		return failed("run a check of the mirror: `echo repair >/sys/block/"+n.root.name+"/md/sync_action`", "%s", oneLine(err))
	}
	return passed("%s, both copies whole%s", h.UUID, n.onMembers())
}

func (n *node) onMembers() string {
	if n.root.mirror == nil {
		return ""
	}
	return fmt.Sprintf(", the same on %s", strings.Join(n.root.mirror.InSync(), " and "))
}

func (n *node) alike(want disk.LUKS2) error {
	if n.root.mirror == nil {
		return nil
	}
	var errs []error
	for _, member := range n.root.mirror.InSync() {
		h, err := n.memberHeader(member)
		if err == nil && h.Damaged != "" {
			err = errors.New(h.Damaged)
		}
		if err == nil && (h.Seq != want.Seq || h.Sum != want.Sum) {
			err = errors.New("its header is another one")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("member %s: %w", member, err))
		}
	}
	return errors.Join(errs...)
}

func (n *node) memberHeader(member string) (disk.LUKS2, error) {
	at, err := strconv.ParseInt(attr(n.path("/sys/block", n.root.name, "md/dev-"+member), "offset"), 10, 64)
	if err != nil {
		return disk.LUKS2{}, fmt.Errorf("where its data begin: %w", err)
	}
	f, err := openDirect(n.path("/dev", member))
	if err != nil {
		return disk.LUKS2{}, err
	}
	defer f.Close()
	return disk.ReadLUKS2(shifted{f, at * 512})
}

// keySlot looks at the slots, and tries a key when one was sent. Nothing is opened.
func keySlot(ctx context.Context, n *node) spec.BootProof {
	if n.rootErr != nil {
		return failed("", "%v", n.rootErr)
	}
	dev := filepath.Join("/dev", n.root.name)
	slots, err := n.luks().Slots(ctx, dev)
	if err != nil {
		return failed("", "%v", err)
	}
	if len(slots) == 0 {
		return failed("do not reboot: the data are readable only as long as this system runs; save them first", "the header has no key slot left")
	}
	var kinds []string
	for _, s := range slots {
		kinds = append(kinds, fmt.Sprintf("%d %s", s.N, s.KDF))
	}
	slices.Sort(kinds)
	text := fmt.Sprintf("slots: %s", strings.Join(kinds, ", "))
	if len(n.req.Key) == 0 {
		return passed("%s; none was tried, since no key was sent", text)
	}
	opens, err := n.luks().Opens(ctx, dev, -1, n.req.Key)
	if err != nil {
		return failed("", "%s; %v", text, err)
	}
	if !opens {
		return failed("do not reboot: the vault's key is not the disk's; the recovery key may still open it", "%s; the vault's key opens none of them", text)
	}
	return passed("%s; the vault's key opens one", text)
}
