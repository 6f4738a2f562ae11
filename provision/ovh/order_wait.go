package ovh

import (
	"context"
	"fmt"
	"strings"
	"time"

	"popfleet/provision/provider"
)

// delivery is how long a server is waited for at pace 1; OVH's own tools wait as long. It may take longer, and goes on
// without us.
const delivery = 2 * time.Hour

// Delivered waits until an order is delivered and returns the service name of its server. It orders and pays nothing and
// may be called again at any time.
func (d *Driver) Delivered(ctx context.Context, o Order, plan string) (service string, err error) {
	op := fmt.Sprintf("wait for order %d", o.ID)
	started, limit := time.Now(), d.opts.Pace.Of(delivery)
	told := ""
	for pause := d.opts.Backoff; ; pause = min(pause*6/5, 2*maxPause) {
		status, err := d.orderStatus(ctx, op, o.ID)
		if err != nil {
			return "", err
		}
		if text := statusText(status, o); text != told {
			say(ctx, "%s: %s", op, text)
			told = text
		}
		switch status {
		case "cancelled", "cancelling":
			return "", &Error{Op: op, Kind: provider.ErrActionFailed, Err: fmt.Errorf("OVH says that it is %s", status), Hint: "look at " + o.URL}
		case "delivered":
			if item, err := d.orderedItem(ctx, op, o.ID, plan); err != nil || item.service() {
				return item.name, err
			}
		}
		if time.Since(started)+pause > limit {
			return "", &Error{Op: op, Kind: provider.ErrTimeout, Err: fmt.Errorf("after %s: %s", limit, told),
				Hint: "the order stands: run the same command again to go on waiting"}
		}
		if err := sleep(ctx, jitter(pause)); err != nil {
			return "", explain(op, request{}, err)
		}
	}
}

// statusText says what an order waits for, and who has to do something about it.
func statusText(status string, o Order) string {
	switch status {
	case "notPaid":
		return "it is not paid; pay it at " + o.URL
	case "documentsRequested":
		return "OVH asks for documents: send them at " + o.URL
	case "delivered":
		return "it is delivered; OVH does not show the server's name yet"
	}
	return "OVH says " + status
}

// ordered is the item of an order that is the server.
type ordered struct {
	found bool
	name  string
}

// service says whether the name is a server's. Until it is delivered OVH shows a placeholder: * or the plan.
func (o ordered) service() bool {
	return o.found && serviceName.MatchString(o.name) && strings.Contains(o.name, ".")
}

// orderedItem finds the item of a plan among an order's details. The US have no extensions but operations, which name
// the server itself.
func (d *Driver) orderedItem(ctx context.Context, op string, id int64, plan string) (ordered, error) {
	var details []int64
	base := fmt.Sprintf("/me/order/%d/details", id)
	if err := d.get(ctx, op+": read its details", base, &details); err != nil {
		return ordered{}, err
	}
	for _, n := range details {
		path := fmt.Sprintf("%s/%d", base, n)
		item, err := d.orderDetail(ctx, op, path, plan)
		if err != nil || item.found {
			return item, err
		}
	}
	return ordered{}, nil
}

func (d *Driver) orderDetail(ctx context.Context, op, path, plan string) (ordered, error) {
	var extension struct {
		Order struct {
			Plan struct{ Code string }
		}
	}
	err := d.get(ctx, op+": read its plan", path+"/extension", &extension)
	if absent(err) {
		return d.operation(ctx, op, path)
	}
	if err != nil || extension.Order.Plan.Code != plan {
		return ordered{}, err
	}
	var detail struct{ Domain string }
	err = d.get(ctx, op+": read its server", path, &detail)
	return ordered{found: true, name: printable(detail.Domain, 253)}, err
}

func (d *Driver) operation(ctx context.Context, op, path string) (ordered, error) {
	var ids []int64
	err := d.get(ctx, op+": read its operations", path+"/operations", &ids)
	if absent(err) || (err == nil && len(ids) == 0) {
		return ordered{}, nil
	}
	if err != nil {
		return ordered{}, err
	}
	var found struct {
		Resource struct{ Name string }
	}
	err = d.get(ctx, op+": read its server", fmt.Sprintf("%s/operations/%d", path, ids[0]), &found)
	return ordered{found: true, name: printable(found.Resource.Name, 253)}, err
}
