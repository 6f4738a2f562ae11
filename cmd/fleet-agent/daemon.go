package main

import (
	"context"
	"errors"
	"log/slog"
)

// daemon is the place where agents/collect is plugged in.
func daemon(context.Context, []string, *slog.Logger) error {
	return errors.New("this build has no collector")
}
