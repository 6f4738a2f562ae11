package mongosim

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/mongosim/codec"
	"popfleet/replication/mongosim/fault"
	"popfleet/replication/mongosim/store"
	"popfleet/replication/wire"
)

// WireVersion says which release is played: 21 is 7.0, 25 is 8.0 with its bulkWrite command.
const (
	WireVersion70 = 21
	WireVersion80 = 25
)

// Options shape a backend. The zero value is a stand-alone 7.0 without users.
type Options struct {
	ReplicaSet  string // the set's name; empty for a stand-alone server, which refuses txnNumber as a real one does
	WireVersion int32  // WireVersion70 if zero
	Seed        uint64 // of cursor ids and generated _ids
	Now         func() time.Time
	Log         *slog.Logger
	Store       store.Options
}

// Backend is one server. Its methods may be called from many goroutines.
type Backend struct {
	options Options
	store   *store.Store
	control *fault.Control
	log     *slog.Logger
	count   atomic.Int64 // commands so far
	events  atomic.Int64 // of those, what faults may befall
	term    atomic.Int64
	conns   connections

	cursors cursors

	mu        sync.Mutex
	rand      *rand.Rand
	down      bool
	secondary bool
	address   string
}

var (
	errMaxTime = errors.New("maxTimeMS passed")
	// ErrDown is what Run returns while the server is down; over the wire the connection is closed.
	ErrDown = errors.New("the server is down")
)

// New makes an empty backend.
func New(o Options) *Backend {
	if o.WireVersion == 0 {
		o.WireVersion = WireVersion70
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	b := &Backend{options: o, store: store.New(o.Store), control: fault.NewControl(), log: o.Log,
		rand: rand.New(rand.NewPCG(o.Seed, 0x6d6f6e676f73696d)), cursors: cursors{open: map[int64]*cursor{}}, address: "localhost:27017"}
	b.conns.open = map[net.Conn]struct{}{}
	b.term.Store(1)
	return b
}

// Run does one command as if it had come over a connection, and returns what the reply holds. A command that fails is a
// *wire.CommandError; ErrDown and fault.ErrCut stand for a connection that is closed. The reply shares no memory with
// the store.
func (b *Backend) Run(ctx context.Context, db string, cmd bson.D) (bson.D, error) {
	raw, err := bson.Marshal(cmd)
	if err != nil {
		return nil, err
	}
	reply, err := b.run(ctx, db, raw)
	if errors.Is(err, fault.ErrSilence) {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	if raw, err = codec.Encode(reply); err != nil {
		return nil, err
	}
	return codec.Decode(raw)
}

// run does a command of which raw holds all fields; what it returns may share memory with the store.
func (b *Backend) run(ctx context.Context, db string, raw bson.Raw) (bson.D, error) {
	r := &request{b: b, db: db, era: b.store.Era(), arrived: time.Now()}
	if b.isDown() { // looked at after the era: a power cut sets it first, so none slips in between
		return nil, ErrDown
	}
	b.count.Add(1)
	var err error
	if r.body, err = codec.Decode(raw); err != nil || len(r.body) == 0 {
		return nil, failure(codeFailedToParse, "not a command: %v", err)
	}
	r.name = r.body[0].Key
	r.coll, _ = r.body[0].Value.(string)
	reply, err := b.befallen(ctx, r)
	switch {
	case err == nil:
		return reply, nil
	case b.isDown():
		return nil, ErrDown
	}
	return nil, r.label(asCommandError(err))
}

// befallen lets the faults happen around the command, if there are any.
func (b *Backend) befallen(ctx context.Context, r *request) (bson.D, error) {
	if b.control.Idle() {
		return b.answered(ctx, r)
	}
	if c, ok := b.command(r.name); !ok || c.kind != about {
		r.n = b.events.Add(1)
	}
	ctx, cancel, err := r.deadline(ctx) // what is held is held no longer than that
	if err != nil {
		return nil, err
	}
	defer cancel()
	return b.control.Around(ctx, r.event(), func(ctx context.Context) (bson.D, error) {
		again := *r // a landing begins from what was asked, not from what the first run left
		return b.answered(ctx, &again)
	})
}

// answered does the command; its error is as a client sees it.
func (b *Backend) answered(ctx context.Context, r *request) (bson.D, error) {
	reply, err := b.execute(ctx, r)
	if err != nil {
		return nil, r.label(asCommandError(err))
	}
	return reply, nil
}

func (b *Backend) isDown() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.down
}

func (b *Backend) isSecondary() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.secondary
}

// label marks an error that a driver may answer by trying again.
func (r *request) label(err error) error {
	var ce *wire.CommandError
	if !errors.As(err, &ce) || !retryable(ce.Code) || slices.Contains(ce.Labels, "RetryableWriteError") {
		return err
	}
	if _, has := r.lookup("txnNumber"); !has {
		return err
	}
	labelled := *ce
	labelled.Labels = append([]string{"RetryableWriteError"}, ce.Labels...)
	return &labelled
}
