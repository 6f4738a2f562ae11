package stack

import (
	"errors"
	"strings"
)

// shorten keeps the telling lines of a CLI's output: the automation API returns all of it.
func shorten(err error) error {
	if err == nil {
		return nil
	}
	const keep = 12
	var lines []string
	for line := range strings.Lines(err.Error()) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "code: 0") || line == "stdout:" || line == "stderr:" {
			continue
		}
		lines = append(lines, line)
	}
	if len(lines) > keep {
		lines = append(lines[:1], lines[len(lines)-keep+1:]...)
	}
	return errors.New(strings.Join(lines, "; "))
}
