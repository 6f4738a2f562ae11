package oplog

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble"
	"github.com/cockroachdb/pebble/vfs"
)

func TestADamagedRecordIsNamedAndTheRestIsServed(t *testing.T) {
	l := open(t, vfs.NewMem())
	appendAll(t, l, entries(own, 1, 50)...)
	appendAll(t, l, entries(2, 1, 5)...)
	damage := func(seq uint64, f func(b []byte) []byte) {
		raw, err := l.get(logKey(own, seq))
		must(t, err)
		must(t, l.db.Set(logKey(own, seq), f(raw), pebble.Sync))
	}
	damage(20, func(b []byte) []byte { b[len(b)/2] ^= 4; return b })
	damage(21, func([]byte) []byte { raw, _ := l.get(logKey(own, 22)); return raw }) // whole, but another's
	must(t, l.db.Delete(logKey(own, 30), pebble.Sync))
	if all, err := l.Read(own, 10, 1<<20); err != nil || len(all) != 10 {
		t.Errorf("read up to the damage: %d, %v", len(all), err)
	}
	_, err := l.Read(own, 20, 1<<20)
	if d, ok := errors.AsType[*DamageError](err); !ok || d.Origin != own || d.From != 20 || d.To != 21 {
		t.Errorf("read at the damage: %v", err)
	}
	all, err := l.Verify(t.Context())
	if err != nil || len(all) != 2 || all[1].From != 30 || all[1].To != 30 {
		t.Errorf("verify: %v, %v", all, err)
	}
	must(t, l.Repair(t.Context(), entry(own, 20), entry(own, 21), entry(own, 30)))
	expectRead(t, l, own, 1, 50)
	expectRead(t, l, 2, 1, 5)
}

// A flipped bit in one of Pebble's tables costs a block of entries at most; what was repaired is served though the block
// stays as it is until it is truncated.
func TestAFlippedBitInATableIsFoundAndRepaired(t *testing.T) {
	fs := vfs.NewMem()
	l := open(t, fs)
	random := rand.New(rand.NewPCG(1, 2))
	all := entries(own, 1, 3000)
	for i := range all {
		all[i].Payload = make([]byte, 200)
		for j := range all[i].Payload {
			all[i].Payload[j] = byte(random.Uint32())
		}
	}
	appendAll(t, l, all...)
	must(t, l.db.Flush())
	closed(t, l)
	flipTables(t, fs)
	l = open(t, fs)
	damaged, err := l.Verify(t.Context())
	if err != nil || len(damaged) != 1 || damaged[0].To-damaged[0].From > 40 {
		t.Fatalf("verify: %v, %v", damaged, err)
	}
	d := damaged[0]
	t.Logf("lost to one bit: %d to %d", d.From, d.To)
	must(t, l.Repair(t.Context(), all[d.From-1:d.To]...))
	if left, err := l.Verify(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("after the repair: %v, %v", left, err)
	}
	got, err := l.Read(own, d.From, 1)
	if err != nil || string(got[0].Payload) != string(all[d.From-1].Payload) {
		t.Errorf("repaired entry: %v", err)
	}
}

func flipTables(t *testing.T, fs vfs.FS) {
	t.Helper()
	names, err := fs.List("/log")
	must(t, err)
	for _, name := range names {
		if strings.HasSuffix(name, ".sst") {
			b := readFile(t, fs, "/log/"+name)
			b[len(b)/2] ^= 16
			writeFile(t, fs, "/log/"+name, b)
		}
	}
}

// A bit that flips in the write-ahead log makes Pebble forget everything behind it, in silence. The lease keeps the node
// from issuing those sequences again, and Holes names them.
func TestAFlippedBitInTheWALForgetsNoSequence(t *testing.T) {
	fs := vfs.NewMem()
	l := open(t, fs)
	if _, err := l.Lease(64); err != nil {
		t.Fatal(err)
	}
	for seq := range uint64(60) {
		appendAll(t, l, entry(own, seq+1))
	}
	wal := walFiles(t, fs)
	closed(t, l)
	for name, b := range wal {
		b[len(b)*3/4] ^= 1
		writeFile(t, fs, name, b)
	}
	l = open(t, fs)
	head := l.Vector()[own]
	if head == 60 || head == 0 {
		t.Fatalf("head %d: the flipped bit hit nothing", head)
	}
	if got := l.Holes(own); len(got) != 1 || got[0] != (Span{head + 1, 64}) {
		t.Errorf("holes %v behind %d", got, head)
	}
	if span, err := l.Lease(1); err != nil || span.From != 65 {
		t.Errorf("leased %v, %v", span, err)
	}
	appendAll(t, l, entries(own, head+1, 64)...) // from a peer
	expectRead(t, l, own, 1, 64)
}
