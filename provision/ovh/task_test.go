package ovh_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"popfleet/inventory"
	"popfleet/provision/ovh"
	"popfleet/provision/provider"
)

func TestAFreshTaskThatIsNotShownIsWaitedFor(t *testing.T) {
	for name, do := range map[string]func(http.ResponseWriter){"404": notFound, "500": status(500), "cut": cut} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.before = failing(4, "GET", "/task/101", do)
			if err := f.driver(t).Reset(t.Context(), service, restart(0)); err != nil {
				t.Fatal(err)
			}
			if n := f.count("POST", "/reboot"); n != 1 {
				t.Errorf("%d reboots", n)
			}
		})
	}
}

func TestHowATaskMayEnd(t *testing.T) {
	for name, c := range map[string]struct {
		edit object
		kind error
		says string
	}{
		"done":           {edit: object{"status": "done"}},
		"customer error": {edit: object{"status": "customerError", "comment": "no\x1b[31m way"}, kind: provider.ErrActionFailed, says: "no [31m way"},
		"ovh error":      {edit: object{"status": "ovhError", "comment": "power unit"}, kind: provider.ErrActionFailed, says: "power unit"},
		"cancelled":      {edit: object{"status": "cancelled"}, kind: provider.ErrActionFailed, says: "cancelled"},
		"stuck":          {edit: object{"status": "doing", "comment": "step 3"}, kind: provider.ErrTimeout, says: "is doing: step 3"},
		"unscheduled":    {edit: object{"status": "todo", "needSchedule": true}, kind: provider.ErrTimeout, says: "choose a time slot"},
		"a new word":     {edit: object{"status": "init", "comment": "x"}, kind: provider.ErrTimeout, says: "is init"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.polls = -1
			f.after = func(r *http.Request) bool {
				for k, v := range c.edit {
					if task := f.servers[service].tasks[101]; task != nil {
						task[k] = v
					}
				}
				return false
			}
			d := f.driver(t, func(o *ovh.Options) {
				if c.kind == provider.ErrTimeout {
					o.Pace = 0.0001
				}
			})
			var l listening
			err := d.Reset(l.ctx(t), service, restart(0))
			if c.kind == nil {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %v with %q", err, c.kind, c.says)
			}
			if c.edit["needSchedule"] == true && !l.heard("time slot") {
				t.Errorf("said %q", l.said)
			}
			if n := f.count("POST", "/reboot"); n != 1 {
				t.Errorf("%d reboots: a task that failed is not started again by itself", n)
			}
		})
	}
}

func TestTaskZeroIsAFailure(t *testing.T) {
	f := newFake(t)
	f.before = failing(-1, "POST", "/reboot", func(w http.ResponseWriter) {
		reply(w, object{"taskId": 0, "function": "hardReboot", "status": "init"})
	})
	err := f.driver(t).Reset(t.Context(), service, restart(0))
	if !errors.Is(err, provider.ErrActionFailed) || !strings.Contains(err.Error(), "task 0") {
		t.Errorf("error %v", err)
	}
	if n := f.count("POST", "/reboot"); n != 1 {
		t.Errorf("%d reboots", n)
	}
}

func TestABusyServerIsWaitedFor(t *testing.T) {
	f := newFake(t)
	f.before = failing(3, "POST", "/reboot", func(w http.ResponseWriter) { newError(w, 409, "Client::Conflict", "reinstall is running") })
	var l listening
	if err := f.driver(t).Reset(l.ctx(t), service, restart(0)); err != nil || !l.heard("reinstall is running") {
		t.Errorf("error %v, said %q", err, l.said)
	}
}

func TestAnExpiredKeyEndsAWait(t *testing.T) {
	f := newFake(t)
	f.before = failing(-1, "GET", "/task/101", func(w http.ResponseWriter) { oldError(w, 403, "INVALID_CREDENTIAL") })
	if err := f.driver(t).Reset(t.Context(), service, restart(0)); !errors.Is(err, provider.ErrUnauthorized) {
		t.Errorf("error %v", err)
	}
}

func TestAWaitEndsWithItsContext(t *testing.T) {
	f := newFake(t)
	f.polls = -1
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the operator pressed ^C")
	f.before = func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/task/101") {
			cancel(why)
		}
		return false
	}
	if err := f.driver(t).Reset(ctx, service, restart(0)); !errors.Is(err, why) {
		t.Errorf("error %v", err)
	}
}

// The deadlines at pace 1, in a bubble where time costs nothing.
func TestDeadlinesOfTasks(t *testing.T) {
	for name, c := range map[string]struct {
		task string
		code int
		kind error
		at   time.Duration
	}{
		"stuck in doing": {`{"taskId":7,"function":"hardReboot","status":"doing"}`, 200, provider.ErrTimeout, 30 * time.Minute},
		"never shown":    {`{"class":"Client::NotFound","message":"m"}`, 404, provider.ErrActionGone, 5 * time.Minute},
		"always 500":     {`oops`, 500, provider.ErrActionGone, 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				polls := 0
				d, err := ovh.New(ovh.Options{ApplicationKey: inventory.SecretText(appKey), ApplicationSecret: inventory.SecretText(appSecret),
					ConsumerKey: inventory.SecretText(consumerKey), Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
						switch path := r.URL.Path; {
						case strings.HasSuffix(path, "/auth/time"):
							return answer(200, "1457018875"), nil
						case strings.HasSuffix(path, "/boot/1"):
							return answer(200, `{"bootId":1,"bootType":"harddisk","kernel":"hd"}`), nil
						case strings.HasSuffix(path, "/task"):
							return answer(200, "[]"), nil
						case strings.HasSuffix(path, "/reboot"):
							return answer(200, `{"taskId":7,"function":"hardReboot","status":"init"}`), nil
						case strings.HasSuffix(path, "/task/7"):
							polls++
							return answer(c.code, c.task), nil
						case r.Method == "GET":
							return answer(200, `{"name":"ns1","state":"ok","bootId":1}`), nil
						}
						return nil, io.ErrUnexpectedEOF
					})})
				if err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				err = d.Reset(t.Context(), service, restart(0))
				took := time.Since(start)
				if !errors.Is(err, c.kind) || took < c.at-20*time.Second || took > c.at+20*time.Second {
					t.Errorf("after %s: %v, want %v after %s", took, err, c.kind, c.at)
				}
				t.Logf("%s: %d polls in %s", name, polls, took.Round(time.Second))
			})
		})
	}
}
