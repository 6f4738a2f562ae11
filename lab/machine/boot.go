package machine

import (
	"time"

	"popfleet/lab/faults"
)

// Boot is what a machine starts from, and what is wrong with that start.
type Boot struct {
	Rescue         bool
	AuthorizedKeys []string // root's keys in the rescue system
	RootPassword   string   // unused by QEMU machines, kept for faithfulness
	// HostKeys are private keys in OpenSSH's PEM form. The rescue system shows exactly these; with none it makes its own.
	HostKeys [][]byte

	MissingDisks []int         // which of the machine's disks, from 0, are not found in this boot
	SwapDisks    bool          // two disks are found in the other order
	Late         time.Duration // the start takes so much longer
	Hangs        bool          // the machine has power and nothing ever answers
}

// slowRescue is how late a rescue-slow without a duration is: what has been seen at Hetzner.
const slowRescue = 5*time.Minute + 30*time.Second

// Struck is the boot with the faults that the set holds for this machine's start. A provider calls it with what it
// decided to boot; faults that are about the decision itself (rescue-ignored) are its own.
func (b Boot) Struck(set *faults.Set, names []string) Boot {
	o := faults.Occasion{Layer: faults.Machine, Machine: names}
	if _, ok := set.Take(o, faults.BootHangs); ok {
		b.Hangs = true
	}
	if f, ok := set.Take(o, faults.DiskMissing); ok {
		b.MissingDisks = append(b.MissingDisks, f.Disk)
	}
	if _, ok := set.Take(o, faults.DisksSwapped); ok {
		b.SwapDisks = true
	}
	if b.Rescue {
		b.strikeRescue(set, o)
	}
	return b
}

func (b *Boot) strikeRescue(set *faults.Set, o faults.Occasion) {
	if _, ok := set.Take(o, faults.RescueNever); ok {
		b.Hangs = true
	}
	if f, ok := set.Take(o, faults.RescueSlow); ok {
		b.Late = f.For.D()
		if b.Late == 0 {
			b.Late = slowRescue
		}
	}
}
