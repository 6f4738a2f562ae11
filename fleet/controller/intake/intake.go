// Package intake reads what agents send: bytes from nodes that may be stolen, so it bounds everything, and takes reports
// only of the node that the caller's certificate names. It keeps nothing and refuses a batch whole.
package intake

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"popfleet/agents"
)

// Bounds of a batch.
const (
	maxJSONBytes = 16 << 20 // unpacked
	maxReports   = 1000
)

// Read decodes a batch and refuses what no agent of ours sends. Unknown fields are let through: an agent may be
// one release ahead.
func Read(body io.Reader, encoding, node string) ([]agents.Report, error) {
	switch encoding {
	case "gzip":
		z, err := gzip.NewReader(body)
		if err != nil {
			return nil, fmt.Errorf("reports: %w", err)
		}
		body = z
	case "", "identity":
	default:
		return nil, fmt.Errorf("reports: content encoding %q; expected gzip", encoding)
	}
	text, err := io.ReadAll(io.LimitReader(body, maxJSONBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reports: %w", err)
	}
	if len(text) > maxJSONBytes {
		return nil, fmt.Errorf("reports: more than %d bytes when unpacked", maxJSONBytes)
	}
	var reports []agents.Report
	if err := json.Unmarshal(text, &reports); err != nil {
		return nil, fmt.Errorf("reports: %w", err)
	}
	if len(reports) == 0 || len(reports) > maxReports {
		return nil, fmt.Errorf("reports: %d in one batch; expected 1 to %d", len(reports), maxReports)
	}
	for i := range reports {
		if err := check(&reports[i], node); err != nil {
			return nil, fmt.Errorf("reports: number %d: %w", i, err)
		}
	}
	return reports, nil
}

func check(r *agents.Report, node string) error {
	switch {
	case r.V < 1:
		return fmt.Errorf("version %d", r.V)
	case r.Node != node:
		return fmt.Errorf("it is of node %q, the certificate of %q", r.Node, node)
	case r.BootID == "" || len(r.BootID) > 64:
		return errors.New("boot_id is missing or too long")
	case r.Seq == 0:
		return errors.New("seq is 0; it counts from 1")
	case r.Time.IsZero():
		return errors.New("time is missing")
	case len(r.BootChanged) > 64:
		return errors.New("boot_changed is too long")
	case len(r.Mirrors) > 100 || slices.ContainsFunc(r.Mirrors, tooLong):
		return errors.New("too many mirrors, or members of one")
	case len(r.Disks) > 1000 || len(r.Services) > 1000 || len(r.Pairs) > 10000:
		return errors.New("too many disks, services or pairs")
	}
	return nil
}

func tooLong(m agents.Mirror) bool { return len(m.Members) > 100 || len(m.Gone) > 100 }
