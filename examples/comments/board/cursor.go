package board

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Page sizes.
const (
	DefaultPage = 50
	MaxPage     = 200
)

// Cursor is a place in a list from the newest to the oldest: the last document seen. The zero cursor is the beginning.
type Cursor struct {
	At time.Time
	ID string
}

// String is what a client hands back to go on; empty for the zero cursor.
func (c Cursor) String() string {
	if c.ID == "" {
		return ""
	}
	return strconv.FormatInt(c.At.UnixMilli(), 10) + "-" + c.ID
}

// ParseCursor reads what String wrote.
func ParseCursor(s string) (Cursor, error) {
	if s == "" {
		return Cursor{}, nil
	}
	ms, id, _ := strings.Cut(s, "-")
	n, err := strconv.ParseInt(ms, 10, 64)
	if err != nil || n < 0 || n > maxMillis || !ValidID(id) || strconv.FormatInt(n, 10) != ms {
		return Cursor{}, fmt.Errorf("cursor %.60q: expected the \"next\" of an earlier answer", s)
	}
	return Cursor{At: time.UnixMilli(n).UTC(), ID: id}, nil
}

// maxMillis is the end of the year 9999: JSON has no later time.
const maxMillis = 253402300799999

// ParseLimit reads a page size; empty is the default.
func ParseLimit(s string) (int, error) {
	if s == "" {
		return DefaultPage, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > MaxPage {
		return 0, fmt.Errorf("limit %.20q: expected 1 to %d", s, MaxPage)
	}
	return n, nil
}
