package spool

// Range is the indices from First to Last, both included.
type Range struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

// pending is a set of indices as ranges, oldest first, apart from each other. Newest-first delivery with a growing head
// leaves a few ranges, never many.
type pending struct{ ranges []Range }

// add puts in indices that are larger than all others.
func (p *pending) add(first, last uint64) {
	if n := len(p.ranges); n > 0 && p.ranges[n-1].Last+1 >= first {
		p.ranges[n-1].Last = max(p.ranges[n-1].Last, last)
		return
	}
	p.ranges = append(p.ranges, Range{first, last})
}

// remove takes indices out and tells whether any of them was in.
func (p *pending) remove(first, last uint64) bool {
	var left []Range
	hit := false
	for _, r := range p.ranges {
		if r.Last < first || r.First > last {
			left = append(left, r)
			continue
		}
		hit = true
		if r.First < first {
			left = append(left, Range{r.First, first - 1})
		}
		if r.Last > last {
			left = append(left, Range{last + 1, r.Last})
		}
	}
	p.ranges = left
	return hit
}

func (p *pending) removeBelow(index uint64) {
	if index > 0 {
		p.remove(0, index-1)
	}
}

func (p *pending) newest() (uint64, bool) {
	if n := len(p.ranges); n > 0 {
		return p.ranges[n-1].Last, true
	}
	return 0, false
}

func (p *pending) oldest() (uint64, bool) {
	if len(p.ranges) > 0 {
		return p.ranges[0].First, true
	}
	return 0, false
}

// before is the largest member below index.
func (p *pending) before(index uint64) (uint64, bool) {
	for i := len(p.ranges) - 1; i >= 0; i-- {
		if r := p.ranges[i]; r.First < index {
			return min(r.Last, index-1), true
		}
	}
	return 0, false
}

func (p *pending) count() (n uint64) {
	for _, r := range p.ranges {
		n += r.Last - r.First + 1
	}
	return n
}

// valid tells whether ranges read from a file are in order and apart.
func valid(ranges []Range, next uint64) bool {
	floor := uint64(0)
	for _, r := range ranges {
		if r.First > r.Last || r.First < floor || r.Last >= next {
			return false
		}
		floor = r.Last + 1
	}
	return true
}
