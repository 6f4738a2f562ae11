package lab

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"

	"popfleet/internal/strictjson"
)

// NewDisk is a blank disk that somebody puts into a machine's slot, in the place of the one that is there.
type NewDisk struct {
	Slot   int    `json:"slot"` // 0 or 1
	Serial string `json:"serial"`
	SizeGB int    `json:"size_gb"` // 10^9 bytes
}

var serialName = regexp.MustCompile(`^[A-Za-z0-9]{1,20}$`)

func (n NewDisk) check() error {
	switch {
	case n.Slot < 0 || n.Slot > 1:
		return fmt.Errorf("slot %d: expected 0 or 1", n.Slot)
	case !serialName.MatchString(n.Serial):
		return fmt.Errorf("serial %q: expected up to 20 letters and digits", n.Serial)
	case n.SizeGB < 1 || n.SizeGB > 20000:
		return fmt.Errorf("size_gb %d: expected 1 to 20000", n.SizeGB)
	}
	return nil
}

// diskTaker is a machine whose disks can be exchanged. One that really runs has to be off.
type diskTaker interface {
	ReplaceDisk(slot int, serial string, sizeBytes int64) error
}

func (d *daemon) replaceDisk(r *http.Request) (any, error) {
	data, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
	if err != nil {
		return nil, err
	}
	var n NewDisk
	if err := strictjson.Decode(data, &n); err != nil {
		return nil, err
	}
	if err := n.check(); err != nil {
		return nil, err
	}
	i, err := d.machine(r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	m, ok := i.Machine.(diskTaker)
	if !ok {
		return nil, fmt.Errorf("machine %s: its disks can't be exchanged", i.Name)
	}
	return map[string]string{"machine": i.Name}, m.ReplaceDisk(n.Slot, n.Serial, int64(n.SizeGB)*1e9)
}

// ReplaceDisk puts a blank disk into a machine.
func (c *Client) ReplaceDisk(ctx context.Context, name string, n NewDisk) error {
	return c.do(ctx, http.MethodPost, "/machines/"+url.PathEscape(name)+"/disk", n, &struct{}{})
}
