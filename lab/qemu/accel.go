package qemu

import (
	"context"
	"fmt"
	"log/slog"

	"popfleet/lab/rescue"
)

func chooseAccel(ctx context.Context, want string, r rescue.Rescue, log *slog.Logger) (string, error) {
	switch want {
	case "tcg", "kvm":
		return want, nil
	case "":
		return "tcg", nil
	}
	return "", fmt.Errorf("accelerator %q: expected tcg or kvm", want)
}
