package hetznercloud

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"

	"popfleet/provision/provider"
)

// goneAfter is how many polls in a row may miss an action before it counts as gone: a fresh action may take a moment to
// show up everywhere.
const goneAfter = 3

// actionDeadline bounds one action at pace 1. Creates take some seconds, power actions less.
const actionDeadline = 3 * time.Minute

// await waits for actions to succeed. A failed action is an [Error] that wraps provider.ErrActionFailed or a more exact kind;
// one the API no longer knows is provider.ErrActionGone, and the caller looks at the object instead.
func (d *Driver) await(ctx context.Context, op string, actions ...*hcloud.Action) error {
	limit := d.opts.Pace.Of(actionDeadline)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done after %s", limit))
	defer cancel()
	for _, a := range actions {
		if a == nil {
			continue
		}
		if err := d.awaitOne(ctx, op, a); err != nil {
			return err
		}
	}
	return nil
}

func (d *Driver) awaitOne(ctx context.Context, op string, a *hcloud.Action) error {
	if a.Status == hcloud.ActionStatusRunning {
		say(ctx, "%s: waiting for the provider's action %s (%d)", op, a.Command, a.ID)
		done, err := d.actions.wait(ctx, a.ID)
		if err != nil {
			return actionWaitError(op, a, err)
		}
		a = done
	}
	err := a.Error()
	if err == nil {
		return nil
	}
	if hint, kind := kindOf(err); kind != nil {
		return &Error{Op: op, Kind: kind, Hint: hint, Err: err}
	}
	return &Error{Op: op, Kind: provider.ErrActionFailed, Err: err}
}

func actionWaitError(op string, a *hcloud.Action, err error) error {
	op = fmt.Sprintf("%s: action %s (%d)", op, a.Command, a.ID)
	if errors.Is(err, provider.ErrActionGone) {
		return &Error{Op: op, Kind: provider.ErrActionGone}
	}
	if errors.Is(err, context.Canceled) || codeOf(err) != "" {
		return explain(op, err)
	}
	return &Error{Op: op, Kind: provider.ErrTimeout, Err: err, Hint: "run the same command again to go on"}
}

func (d *Driver) fetchActions(ctx context.Context, ids []int64) (map[int64]*hcloud.Action, error) {
	found := make(map[int64]*hcloud.Action, len(ids))
	for chunk := range slices.Chunk(ids, 25) {
		err := d.try(ctx, func(ctx context.Context) error {
			list, _, err := d.client.Action.List(ctx, hcloud.ActionListOpts{
				ID: chunk, ListOpts: hcloud.ListOpts{PerPage: 50}})
			for _, a := range list {
				found[a.ID] = a
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// watcher polls for all awaited actions together: twenty servers created at once would otherwise poll the hourly rate
// limit away in minutes. Its one goroutine runs only while something is awaited.
type watcher struct {
	fetch func(context.Context, []int64) (map[int64]*hcloud.Action, error)
	pause time.Duration
	wg    sync.WaitGroup

	mu      sync.Mutex
	pending map[int64]*pendingAction // guarded by mu
	stop    context.CancelFunc       // guarded by mu; nil when no goroutine runs
}

type pendingAction struct {
	waiters int
	misses  int
	done    chan struct{} // closed once result or err is set
	result  *hcloud.Action
	err     error
}

func newWatcher(fetch func(context.Context, []int64) (map[int64]*hcloud.Action, error), pause time.Duration) *watcher {
	return &watcher{fetch: fetch, pause: pause, pending: map[int64]*pendingAction{}}
}

// wait blocks until the action is no longer running.
func (w *watcher) wait(ctx context.Context, id int64) (*hcloud.Action, error) {
	p := w.join(id)
	defer w.leave(id, p)
	select {
	case <-p.done:
		return p.result, p.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (w *watcher) join(id int64) *pendingAction {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.pending[id]
	if p == nil {
		p = &pendingAction{done: make(chan struct{})}
		w.pending[id] = p
	}
	p.waiters++
	if w.stop == nil {
		ctx, cancel := context.WithCancel(context.Background())
		w.stop = cancel
		w.wg.Go(func() { w.poll(ctx) })
	}
	return p
}

func (w *watcher) leave(id int64, p *pendingAction) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p.waiters--
	if p.waiters == 0 && w.pending[id] == p {
		delete(w.pending, id)
	}
	w.stopIfIdle()
}

// stopIfIdle ends the goroutine when nothing is awaited; mu is held.
func (w *watcher) stopIfIdle() {
	if len(w.pending) == 0 && w.stop != nil {
		w.stop()
		w.stop = nil
	}
}

func (w *watcher) close() {
	w.mu.Lock()
	for _, p := range w.pending {
		p.err = errors.New("the driver was closed")
		close(p.done)
	}
	clear(w.pending)
	w.stopIfIdle()
	w.mu.Unlock()
	w.wg.Wait()
}

// poll runs until ctx ends. It slows down from one pause to three as time goes by; a failed poll is simply repeated,
// because every waiter has a deadline of its own.
func (w *watcher) poll(ctx context.Context) {
	for pause := w.pause; ; pause = min(pause*6/5, 3*w.pause) {
		if sleep(ctx, pause) != nil {
			return
		}
		ids := w.ids()
		found, err := w.fetch(ctx, ids)
		if err != nil {
			if v := judge(err); !v.retry && ctx.Err() == nil {
				w.fail(ids, err)
			}
			continue
		}
		w.settle(ids, found)
	}
}

func (w *watcher) ids() []int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.pending))
}

func (w *watcher) settle(ids []int64, found map[int64]*hcloud.Action) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		p := w.pending[id]
		if p == nil {
			continue
		}
		switch a := found[id]; {
		case a == nil:
			if p.misses++; p.misses >= goneAfter {
				w.finish(id, p, nil, provider.ErrActionGone)
			}
		case a.Status != hcloud.ActionStatusRunning:
			w.finish(id, p, a, nil)
		default:
			p.misses = 0
		}
	}
}

func (w *watcher) fail(ids []int64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		if p := w.pending[id]; p != nil {
			w.finish(id, p, nil, err)
		}
	}
}

// finish wakes the waiters of one action; mu is held.
func (w *watcher) finish(id int64, p *pendingAction, a *hcloud.Action, err error) {
	p.result, p.err = a, err
	close(p.done)
	delete(w.pending, id)
}
