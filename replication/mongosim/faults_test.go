package mongosim

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
	"popfleet/replication/mongosim/fault"
	"popfleet/replication/wire"
)

func insertCommand(id any, more ...bson.E) bson.D {
	return append(bson.D{e("insert", "c"), e("documents", bson.A{bson.D{e("_id", id)}})}, more...)
}

func setCommand(filter bson.D, v any, more ...bson.E) bson.D {
	return append(bson.D{e("update", "c"), e("updates", bson.A{bson.D{e("q", filter), e("u", bson.D{e("$set", bson.D{e("v", v)})})}})}, more...)
}

func concernOf(fields ...bson.E) bson.E { return e("writeConcern", bson.D(fields)) }

func code(err error) int32 {
	if ce := new(wire.CommandError); errors.As(err, &ce) {
		return ce.Code
	}
	return 0
}

func ids(b *Backend) (all []int64) {
	for _, raw := range b.Faults().Dump("d", "c") {
		all = append(all, raw.Lookup("_id").AsInt64())
	}
	return all
}

func value(b *Backend, id int) any {
	for _, raw := range b.Faults().Dump("d", "c") {
		if raw.Lookup("_id").AsInt64() == int64(id) {
			v, _ := raw.Lookup("v").AsInt64OK()
			return v
		}
	}
	return nil
}

// A write that lands after its sender gave up overwrites a newer one, unless it carries a guard: the case that the
// proxy's guard exists for.
func TestLateLanding(t *testing.T) {
	for _, guarded := range []bool{false, true} {
		b := New(Options{})
		must(t, b, insertCommand(1))
		filter := bson.D{e("_id", 1)}
		if guarded {
			filter = append(filter, e("v", bson.D{e("$not", bson.D{e("$gte", 1)})}))
		}
		b.Faults().Add(fault.Rule{Command: "update", Times: 1, Do: fault.Park(fault.ErrSilence)})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if _, err := b.Run(ctx, "d", setCommand(filter, 1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("silence: %v", err)
		}
		cancel()
		must(t, b, setCommand(bson.D{e("_id", 1)}, 2))
		w, err := b.Faults().Await(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		reply, err := w[0].Land(t.Context())
		want, n := int64(1), int64(1)
		if guarded {
			want, n = 2, 0
		}
		if err != nil || value(b, 1) != want || number(reply, "n") != n {
			t.Errorf("guarded %v: v = %v, reply %v, %v", guarded, value(b, 1), reply, err)
		}
		if _, err := w[0].Land(t.Context()); !errors.Is(err, fault.ErrDropped) {
			t.Errorf("second landing: %v", err)
		}
	}
}

// maxTimeMS bounds how late a write can land, counted from its arrival.
func TestMaxTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Options{})
		b.Faults().Add(fault.Rule{Command: "insert", Times: 1, Do: fault.Park(fault.ErrCut)})
		if _, err := b.Run(t.Context(), "d", insertCommand(1, e("maxTimeMS", 50))); !errors.Is(err, fault.ErrCut) {
			t.Fatal(err)
		}
		time.Sleep(51 * time.Millisecond)
		if _, err := b.Faults().Waiting()[0].Land(t.Context()); code(err) != codeMaxTimeMSExpired {
			t.Errorf("landing after maxTimeMS: %v", err)
		}
		b.Faults().Add(fault.Rule{Command: "insert", Times: 1, Do: fault.Hold()})
		if _, err := b.Run(t.Context(), "d", insertCommand(2, e("maxTimeMS", 50))); code(err) != codeMaxTimeMSExpired {
			t.Errorf("held longer than maxTimeMS: %v", err)
		}
		if got := ids(b); got != nil {
			t.Errorf("effects without time: %v", got)
		}
	})
}

func TestHeldUntilReleased(t *testing.T) {
	b := New(Options{})
	b.Faults().Add(fault.Rule{Command: "insert", Times: 1, Do: fault.Hold()})
	done := make(chan error, 1)
	go func() { _, err := b.Run(t.Context(), "d", insertCommand(1)); done <- err }()
	w, err := b.Faults().Await(t.Context(), 1)
	if err != nil || ids(b) != nil {
		t.Fatal("an effect before the release", err)
	}
	w[0].Release()
	if err := <-done; err != nil || len(ids(b)) != 1 {
		t.Error(err, ids(b))
	}
}

func TestPowerCutKeepsExactlyWhatWasJournalled(t *testing.T) {
	b := New(Options{ReplicaSet: "sim"})
	f := b.Faults()
	must(t, b, insertCommand(1, concernOf(e("w", 1), e("j", true))))
	must(t, b, insertCommand(2, concernOf(e("w", 1))))
	f.Journal()
	must(t, b, insertCommand(3, concernOf(e("w", 1))))
	must(t, b, bson.D{e("delete", "c"), e("deletes", bson.A{bson.D{e("q", bson.D{e("_id", 1)}), e("limit", 1)}}), concernOf(e("w", 1))})
	if lost := f.PowerCut(); lost != 2 {
		t.Errorf("%d writes lost, want 2", lost)
	}
	if _, err := b.Run(t.Context(), "d", insertCommand(4)); !errors.Is(err, ErrDown) {
		t.Errorf("while down: %v", err)
	}
	f.Start()
	if got := ids(b); !slices.Equal(got, []int64{1, 2}) {
		t.Errorf("documents %v, want 1 and 2", got)
	}
	if m := f.Marks(); m.Majority > m.Journalled || m.Journalled != m.Applied {
		t.Errorf("marks %+v", m)
	}
}

func TestFailoverRollsBackWhatIsNotOnAMajority(t *testing.T) {
	b := New(Options{ReplicaSet: "sim"})
	f := b.Faults()
	must(t, b, insertCommand(1))
	must(t, b, insertCommand(2, concernOf(e("w", 1), e("j", true))))
	session := bson.D{e("id", "s")}
	retryable := insertCommand(3, concernOf(e("w", 1)), e("lsid", session), e("txnNumber", 1))
	must(t, b, retryable)
	must(t, b, retryable) // recorded: no duplicate key
	if lost := f.Failover(); lost != 2 {
		t.Errorf("%d writes lost, want 2", lost)
	}
	if got := ids(b); !slices.Equal(got, []int64{1}) {
		t.Errorf("documents %v, want 1", got)
	}
	must(t, b, retryable) // its record went with the write, so it is done anew
	if got := ids(b); !slices.Equal(got, []int64{1, 3}) {
		t.Errorf("documents %v after the retry", got)
	}
}

// A majority write that waits while its node is replaced learns that it may be lost; one that waits too long says so.
func TestMajorityWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Options{ReplicaSet: "sim"})
		f := b.Faults()
		f.HoldMajority()
		reply, err := b.Run(t.Context(), "d", insertCommand(1, concernOf(e("w", "majority"), e("wtimeout", 20))))
		if err != nil || number(reply, "writeConcernError", "code") != codeWriteConcern || number(reply, "n") != 1 {
			t.Errorf("wtimeout: %v, %v", reply, err)
		}
		done := make(chan error, 1)
		go func() { _, err := b.Run(t.Context(), "d", insertCommand(2)); done <- err }()
		synctest.Wait()
		f.Failover()
		if err := <-done; code(err) != codeStateChange {
			t.Errorf("rolled back while waiting: %v", err)
		}
		f.Resume()
		must(t, b, insertCommand(3))
		if got := ids(b); !slices.Equal(got, []int64{3}) {
			t.Errorf("documents %v, want 3", got)
		}
	})
}

func TestStepDown(t *testing.T) {
	b := New(Options{ReplicaSet: "sim"})
	must(t, b, insertCommand(1))
	b.Faults().StepDown()
	_, err := b.Run(t.Context(), "d", insertCommand(2, e("lsid", bson.D{e("id", 1)}), e("txnNumber", 1)))
	if ce := new(wire.CommandError); !errors.As(err, &ce) || ce.Code != codeNotPrimary || !slices.Contains(ce.Labels, "RetryableWriteError") {
		t.Errorf("write on a secondary: %v", err)
	}
	find := bson.D{e("find", "c")}
	if _, err := b.Run(t.Context(), "d", find); code(err) != codeNotPrimaryNoOk {
		t.Errorf("read on a secondary: %v", err)
	}
	must(t, b, append(find, e("$readPreference", bson.D{e("mode", "secondaryPreferred")})))
	if hello := must(t, b, bson.D{e("hello", 1)}); bsonval.Field(hello, "isWritablePrimary") != false {
		t.Error("a secondary calls itself primary")
	}
	b.Faults().StepUp()
	must(t, b, insertCommand(2))
}

func TestCutsBeforeAndAfterTheEffect(t *testing.T) {
	for point, effect := range map[fault.Point]bool{fault.Received: false, fault.Applied: true, fault.Replying: true} {
		b := New(Options{})
		b.Faults().Add(fault.Rule{Point: point, Command: "insert", Coll: "c", Times: 1, Do: fault.Cut()})
		if _, err := b.Run(t.Context(), "d", insertCommand(1)); !errors.Is(err, fault.ErrCut) {
			t.Errorf("%s: %v", point, err)
		}
		if got := len(ids(b)) == 1; got != effect {
			t.Errorf("%s: effect %v, want %v", point, got, effect)
		}
	}
}

func TestFullDisk(t *testing.T) {
	b := New(Options{})
	must(t, b, insertCommand(1))
	b.Faults().SetFull(true)
	reply, err := b.Run(t.Context(), "d", insertCommand(2))
	if err != nil || number(reply, "n") != 0 || number(bsonval.Get(reply, []string{"writeErrors", "0"}).(bson.D), "code") != codeOutOfDiskSpace {
		t.Errorf("insert: %v, %v", reply, err)
	}
	fam := bson.D{e("findAndModify", "c"), e("query", bson.D{e("_id", 1)}), e("update", bson.D{e("$set", bson.D{e("v", 1)})})}
	if _, err := b.Run(t.Context(), "d", fam); code(err) != codeOutOfDiskSpace {
		t.Errorf("findAndModify: %v", err)
	}
	must(t, b, bson.D{e("delete", "c"), e("deletes", bson.A{bson.D{e("q", bson.D{}), e("limit", 0)}})})
	b.Faults().SetFull(false)
	must(t, b, insertCommand(2))
}

// What a server had taken dies with it: a parked write never lands on the one that comes after.
func TestNothingLandsAcrossEras(t *testing.T) {
	for name, end := range map[string]func(Faults){"power cut": func(f Faults) { f.PowerCut(); f.Start() }, "failover": func(f Faults) { f.Failover() }} {
		b := New(Options{ReplicaSet: "sim"})
		f := b.Faults()
		f.Add(fault.Rule{Command: "insert", Times: 1, Do: fault.Duplicate()})
		must(t, b, insertCommand(1))
		w := f.Waiting()[0]
		end(f)
		if _, err := w.Land(t.Context()); !errors.Is(err, fault.ErrDropped) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestExpire(t *testing.T) {
	b := New(Options{})
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	must(t, b, bson.D{e("createIndexes", "c"), e("indexes", bson.A{bson.D{e("key", bson.D{e("at", 1)}), e("name", "at"), e("expireAfterSeconds", 60)}})})
	for id, at := range []any{now.Add(-2 * time.Minute), now.Add(-30 * time.Second), nil, "text", bson.A{now, now.Add(-time.Hour)}} {
		must(t, b, bson.D{e("insert", "c"), e("documents", bson.A{bson.D{e("_id", id), e("at", at)}})})
	}
	n, err := b.Faults().Expire(t.Context(), now)
	if got := ids(b); err != nil || n != 2 || !slices.Equal(got, []int64{1, 2, 3}) {
		t.Errorf("%d deleted, %v left, %v", n, got, err)
	}
}

func TestMalformedMessageClosesOneConnection(t *testing.T) {
	_, address := serve(t, Options{})
	other := dial(t, address)
	bad := dial(t, address)
	if _, err := bad.Write([]byte{16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xff, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	if n, err := bad.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("%d bytes for a malformed message", n)
	}
	w := wire.NewWriter(other, nil)
	ping, _ := bson.Marshal(bson.D{e("ping", 1), e("$db", "admin")})
	if err := w.Write(&wire.Message{Op: wire.OpMsg, RequestID: 7, Body: ping}); err != nil {
		t.Fatal(err)
	}
	m, err := wire.ReadMessage(other, wire.DefaultLimits())
	if err != nil || m.ResponseTo != 7 || wire.ReplyError(m.Body) != nil {
		t.Errorf("the other connection: %v, %v", m.Body, err)
	}
}
