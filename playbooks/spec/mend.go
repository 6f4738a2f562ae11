package spec

// Putting a disk into the mirrors of a running node that lack one (docs/runbooks/degraded-mirror.md).
const (
	OpMendPlan = "mend-plan" // Mend → MendPlan, changes nothing
	OpMend     = "mend"      // Mend → MendPlan, as it is when the disk is in the mirrors; the kernel writes it from then on
)

// Mend asks for the missing disk to be replaced. It may be asked again at any time, and goes on where the disk is.
type Mend struct {
	Version int    `json:"version"` // 1
	Node    string `json:"node"`
	Disk    string `json:"disk,omitempty"`  // serial or WWN; empty: the only blank disk
	Erase   bool   `json:"erase,omitempty"` // what is on Disk may be destroyed; without it only a blank disk is taken
}

// What is done to the disk of a [MendPlan].
const (
	MendNothing = ""         // the mirrors are whole, or being written
	MendNew     = "new"      // it is partitioned, gets the boot loaders, and is put into the mirrors
	MendFinish  = "finish"   // likewise: a former attempt did not come to its end
	MendBack    = "put-back" // it is this node's already, and fell out
)

// MendPlan is what is there and what would be done.
type MendPlan struct {
	Mirrors []MirrorState `json:"mirrors"`
	Disk    *Disk         `json:"disk,omitempty"`
	Do      string        `json:"do,omitempty"`
	Serials []string      `json:"serials"` // of the disks that carry this node now, sorted
}

// Whole says whether every mirror has all its members in sync.
func (p MendPlan) Whole() bool {
	for _, m := range p.Mirrors {
		if m.InSync < m.Wanted {
			return false
		}
	}
	return len(p.Mirrors) > 0
}

// MirrorState is one array.
type MirrorState struct {
	Name     string   `json:"name"`
	Device   string   `json:"device"`
	Wanted   int      `json:"wanted"`
	InSync   int      `json:"in_sync"`
	Percent  *float64 `json:"percent,omitempty"` // of a rebuild that is under way
	Rebuilds bool     `json:"rebuilds"`          // a member is there that is not in sync yet
}

// Error codes of a mend.
const (
	CodeNoMirror = "no_mirror"     // the node has one disk
	CodeNoSpare  = "no_spare_disk" // none, or more than one, could be taken: Disk has to name it
)
