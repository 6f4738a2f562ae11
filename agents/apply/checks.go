package apply

import (
	"context"
	"fmt"
	"time"

	"popfleet/playbooks/spec"
)

// checks waits until every service answers healthy. All of them start together, so each one's time counts from now.
func (j *job) checks(ctx context.Context) (work, error) {
	began := time.Now()
	for _, c := range j.want.Checks {
		deadline := began.Add(time.Duration(c.TimeoutSec) * time.Second)
		if err := j.check(ctx, c, deadline); err != nil {
			return work{}, err
		}
	}
	return work{}, nil
}

func (j *job) check(parent context.Context, c spec.Check, deadline time.Time) error {
	ctx, cancel := context.WithDeadline(parent, deadline)
	defer cancel()
	said, reason := "", error(nil)
	for {
		// One question always gets out, even when the checks before used up the time.
		ask, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		reason = j.Health(ask, c.Socket)
		stop()
		if reason == nil {
			return nil
		}
		if reason.Error() != said {
			said = reason.Error()
			j.session.Emit(spec.Event{Kind: spec.KindStep, Step: "checks", Status: "doing", Text: c.Service + ": " + said})
		}
		select {
		case <-ctx.Done():
			if err := parent.Err(); err != nil {
				return err
			}
			return j.unhealthy(c, reason)
		case <-time.After(j.Poll):
		}
	}
}

func (j *job) unhealthy(c spec.Check, reason error) error {
	unit := "fleet-" + c.Service + ".service"
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return &spec.Error{
		Code: spec.CodeUnhealthy,
		Message: fmt.Sprintf("service %s is not healthy after %d s: %v; last lines of its journal:\n%s",
			c.Service, c.TimeoutSec, reason, j.journal(ctx, unit)),
		Hint: "on the node: systemctl status " + unit,
	}
}
