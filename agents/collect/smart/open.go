package smart

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/anatol/smart.go"

	"popfleet/playbooks/spec"
)

// openDisk opens a disk by its block device: the namespace's node takes admin commands too, and unlike the controller's
// character device it belongs to the group disk. NVMe commands never go to anything else: they upset some USB bridges.
func openDisk(d spec.Disk) (DiskReader, error) {
	switch kindOf(d) {
	case KindNVMe:
		n, err := smart.OpenNVMe(d.Path)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", d.Path, err)
		}
		return nvmeReader{n}, nil
	case KindSATA:
		return openSATA(d)
	case KindVirtual:
		return nil, errNoSMART("virtual disk: it has no SMART of its own; its health is the host's affair")
	}
	return nil, errNoSMART("this kind of disk is not read by this version")
}

func openSATA(d spec.Disk) (DiskReader, error) {
	s, err := smart.OpenSata(d.Path)
	if err == nil {
		return &sataReader{device: s, path: d.Path}, nil
	}
	scsi, scsiErr := smart.OpenScsi(d.Path)
	if scsiErr != nil {
		return nil, fmt.Errorf("open %s: %w", d.Path, errors.Join(err, scsiErr))
	}
	scsi.Close()
	if strings.HasPrefix(d.Model, "QEMU") {
		return scsiDisk{KindVirtual, "virtual disk: it has no SMART of its own; its health is the host's affair"}, nil
	}
	return scsiDisk{KindSCSI, "SCSI or SAS disk: its log pages are not read by this version"}, nil
}

// scsiDisk answers for a disk that turned out to take no ATA commands.
type scsiDisk struct{ kind, why string }

func (s scsiDisk) Read(into *Reading) error { into.Kind, into.Unsupported = s.kind, s.why; return nil }
func (s scsiDisk) Close() error             { return nil }

type nvmeReader struct{ device *smart.NVMeDevice }

func (n nvmeReader) Close() error { return n.device.Close() }

func (n nvmeReader) Read(into *Reading) error {
	l, err := n.device.ReadSMART()
	if err != nil {
		return fmt.Errorf("read the SMART log (02h): %w", err)
	}
	into.NVMe = &NVMeLog{
		CriticalWarning: l.CritWarning, TemperatureK: l.Temperature, SparePercent: l.AvailSpare,
		SpareThreshold: l.SpareThresh, PercentUsed: l.PercentUsed,
		// 128-bit counters: the upper halves would take longer than any disk lives
		PowerOnHours: l.PowerOnHours.Val[0], MediaErrors: l.MediaErrors.Val[0],
	}
	return nil
}

// sataReader reads attributes with thresholds and the drive's own verdict. The library does not check the data page's
// checksum, so a counter's jump counts only when two reads agree.
type sataReader struct {
	device *smart.SataDevice
	path   string
	last   []Attribute
}

func (s *sataReader) Close() error { return s.device.Close() }

func (s *sataReader) Read(into *Reading) error {
	page, err := s.page()
	if err != nil {
		return err
	}
	if s.last != nil && jumped(s.last, page.Attributes) {
		again, err := s.page()
		if err != nil {
			return err
		}
		if jumped(page.Attributes, again.Attributes) {
			return errors.New("two reads of the SMART data disagree")
		}
	}
	s.last = page.Attributes
	page.Passed = returnStatus(s.path)
	into.SATA = &page
	return nil
}

func (s *sataReader) page() (SATAPage, error) {
	data, err := s.device.ReadSMARTData()
	if err != nil {
		return SATAPage{}, fmt.Errorf("read the SMART data: %w", err)
	}
	limits, err := s.device.ReadSMARTThresholds()
	if err != nil {
		return SATAPage{}, fmt.Errorf("read the SMART thresholds: %w", err)
	}
	var p SATAPage
	for _, a := range data.Attrs {
		p.Attributes = append(p.Attributes, Attribute{ID: a.Id, Name: a.Name, Current: a.Current, Worst: a.Worst,
			Threshold: limits.Thresholds[a.Id], PreFailure: a.Flags&1 != 0, Raw: a.ValueRaw})
	}
	slices.SortFunc(p.Attributes, func(a, b Attribute) int { return int(a.ID) - int(b.ID) })
	p.TemperatureC = temperature(data)
	p.PowerOnHours = hours(data)
	return p, nil
}

// jumped tells whether a counter that counts for the verdict changed.
func jumped(before, after []Attribute) bool {
	a, b := SATAPage{Attributes: before}, SATAPage{Attributes: after}
	for _, id := range []uint8{attrReallocated, attrUncorrectable, attrPending, attrOffline} {
		if a.raw(id) != b.raw(id) {
			return true
		}
	}
	return false
}

// temperature is attribute 194, or 190 (airflow) where there is none.
func temperature(p *smart.AtaSmartPage) *int {
	for _, id := range []uint8{194, 190} {
		a, ok := p.Attrs[id]
		if !ok {
			continue
		}
		if t, _, _, _, err := a.ParseAsTemperature(); err == nil {
			return &t
		}
		t := int(int8(a.ValueRaw)) // other formats keep the degrees in the lowest byte
		return &t
	}
	return nil
}

// hours is attribute 9; some drives count minutes or seconds there, which the drive table tells.
func hours(p *smart.AtaSmartPage) *uint64 {
	a, ok := p.Attrs[9]
	if !ok {
		return nil
	}
	h := a.ValueRaw & 0xffffffff
	if d, err := a.ParseAsDuration(); err == nil {
		h = uint64(d / time.Hour)
	}
	return &h
}
