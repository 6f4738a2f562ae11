package crdt

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

func integerOf(v any) (int64, error) {
	switch x := v.(type) {
	case int32:
		return int64(x), nil
	case int64:
		if x == -x && x != 0 {
			return 0, errors.New("integer out of range")
		}
		return x, nil
	}
	return 0, fmt.Errorf("%s where an integer belongs", bsonval.TypeName(v))
}

func natural(v any) (uint64, error) {
	n, err := integerOf(v)
	if err == nil && n < 0 {
		err = errors.New("a negative number")
	}
	return uint64(n), err
}

func stampOf(v any) (Stamp, error) {
	n, err := natural(v)
	return Stamp(n), err
}

// livesOf reads what lives wrote.
func livesOf(v any) (deaths []Stamp, alive bool, err error) {
	list, ok := v.(bson.A)
	if !ok {
		return nil, false, errors.New("malformed causal length")
	}
	for i, x := range list {
		s, err := stampOf(x)
		switch {
		case err != nil:
			return nil, false, err
		case s == 0 && i == len(list)-1:
			return deaths, true, nil
		case s == 0:
			return nil, false, errors.New("malformed causal length")
		}
		deaths = append(deaths, s)
	}
	return deaths, false, nil
}

func retryOf(v any) (Retry, error) {
	d, _ := v.(bson.D)
	if len(d) != 3 || d[0].Key != "s" || d[1].Key != "n" || d[2].Key != "i" {
		return Retry{}, errors.New("malformed retry")
	}
	s, ok1 := d[0].Value.(bson.Binary)
	n, ok2 := d[1].Value.(int64)
	i, ok3 := d[2].Value.(int32)
	if !ok1 || !ok2 || !ok3 {
		return Retry{}, errors.New("malformed retry")
	}
	return Retry{Session: s.Data, Number: n, Statement: i}, nil
}

// readTallies reads pairs of a total and its stamp, and the base where there is one.
func (n *node) readTallies(v any) (base any, explicit bool, err error) {
	d, ok := v.(bson.D)
	if !ok {
		return nil, false, errors.New("malformed tallies")
	}
	if last := len(d) - 1; last >= 0 && d[last].Key == "b" {
		base, explicit, d = d[last].Value, true, d[:last]
	}
	if len(d)%2 != 0 {
		return nil, false, errors.New("malformed tallies")
	}
	for i := 0; i < len(d); i += 2 {
		name, into := d[i].Key, &n.inc
		if len(name) > 0 && name[0] == 's' {
			name, into = name[1:], &n.seen
		}
		t, err := tallyFrom(name, d[i], d[i+1])
		if err != nil {
			return nil, false, err
		}
		*into = joinTallies(*into, []tally{t})
	}
	return base, explicit, nil
}

func tallyFrom(name string, total, at bson.E) (tally, error) {
	o, err := strconv.ParseUint(name, 10, 8)
	if err != nil || at.Key != total.Key+"t" {
		return tally{}, errors.New("malformed tally")
	}
	s, err := stampOf(at.Value)
	if err != nil {
		return tally{}, err
	}
	n, err := storedNumber(total.Value)
	return tally{origin: Origin(o), at: s, total: n}, err
}

func storedNumber(v any) (number, error) {
	if a, ok := v.(bson.A); ok && len(a) == 1 {
		if i, ok := a[0].(int64); ok && i != int64(int32(i)) {
			return number{i: i}, nil
		}
		return number{}, errors.New("malformed total")
	}
	n, ok := numberOf(v)
	if !ok {
		return n, errors.New("malformed total")
	}
	return n, nil
}

func (n *node) readExtremes(v any) (base any, explicit bool, err error) {
	d, ok := v.(bson.D)
	if !ok {
		return nil, false, errors.New("malformed extremes")
	}
	if last := len(d) - 1; last >= 0 && d[last].Key == "b" {
		base, explicit, d = d[last].Value, true, d[:last]
	}
	for _, f := range d {
		x, err := extremeFrom(f)
		switch {
		case err != nil:
			return nil, false, err
		case f.Key[0] == 'x':
			n.max = joinExtremes(n.max, []extreme{x})
		case f.Key[0] == 'n':
			n.min = joinExtremes(n.min, []extreme{x})
		default:
			return nil, false, errors.New("malformed extreme")
		}
	}
	return base, explicit, nil
}

func extremeFrom(f bson.E) (extreme, error) {
	pair, ok := f.Value.(bson.A)
	if !ok || len(pair) != 2 || len(f.Key) < 2 {
		return extreme{}, errors.New("malformed extreme")
	}
	o, err := strconv.ParseUint(f.Key[1:], 10, 8)
	if err != nil {
		return extreme{}, errors.New("malformed extreme")
	}
	switch pair[1].(type) {
	case bson.D, bson.A:
		return extreme{}, errors.New("a document or array as extreme")
	}
	at, err := stampOf(pair[0])
	return extreme{Origin(o), at, pair[1]}, err
}

// array reads the elements that show, then those that don't.
func (r *decoder) array(n *node, path string, values bson.A) error {
	shown := make([]packedDot, len(values))
	var dead []packedDot
	for i := range shown {
		shown[i].dot = Dot{n.stamp, uint32(i)}
	}
	if v, ok := r.take(keyElements, path); ok {
		b, isBinary := v.(bson.Binary)
		var err error
		if shown, dead, err = unpackDots(b.Data, len(values)); err != nil || !isBinary {
			return fmt.Errorf("%q: %w", path, errDots)
		}
	}
	order := make([]*node, len(values))
	for i, p := range shown {
		e, _, err := r.node(below(path, strconv.Itoa(i)), values[i], p.dot.Stamp)
		if err != nil {
			return err
		}
		e.uniq, order[i] = p.uniq, e
		n.elems = append(n.elems, elem{p.dot, e})
	}
	for _, p := range dead {
		n.elems = append(n.elems, elem{p.dot, &node{dead: p.dead}})
	}
	r.shown[n] = order
	return r.arrange(n, path)
}

// arrange adds the elements that don't show, sorts all, and refuses what can't be.
func (r *decoder) arrange(n *node, path string) error {
	if v, ok := r.take(keyHidden, path); ok {
		list, _ := v.(bson.A)
		for _, h := range list {
			e, err := hiddenFrom(h)
			if err != nil {
				return fmt.Errorf("%q: hidden element: %w", path, err)
			}
			n.elems = append(n.elems, e)
		}
	}
	if !slices.IsSortedFunc(n.elems[:len(r.shown[n])], func(a, b elem) int { return a.dot.compare(b.dot) }) {
		return fmt.Errorf("%q: %w", path, errDots)
	}
	slices.SortFunc(n.elems, func(a, b elem) int { return a.dot.compare(b.dot) })
	for i, e := range n.elems {
		if e.dot.Stamp < n.cover() || e.dot.Stamp <= 0 || e.n.dead < 0 || i > 0 && e.dot == n.elems[i-1].dot {
			return fmt.Errorf("%q: %w", path, errDots)
		}
	}
	return nil
}

func hiddenFrom(v any) (elem, error) {
	d, ok := v.(bson.D)
	if !ok || len(d) != 5 || d[0].Key != "s" || d[1].Key != "i" || d[2].Key != "u" || d[3].Key != "v" || d[4].Key != Field {
		return elem{}, errors.New("malformed")
	}
	s, err1 := stampOf(d[0].Value)
	i, err2 := natural(d[1].Value)
	uniq, ok1 := d[2].Value.(bool)
	body, ok2 := d[3].Value.(bson.D)
	state, ok3 := d[4].Value.(bson.D)
	if err := cmp.Or(err1, err2); err != nil || !ok1 || !ok2 || !ok3 || i > 1<<32-1 {
		return elem{}, errors.New("malformed")
	}
	r := newDecoder()
	var none Doc
	if err := r.header(&none, state); err != nil {
		return elem{}, err
	}
	root, err := r.tree(body, s)
	if err != nil {
		return elem{}, err
	}
	n := root.kid("e")
	if n == nil {
		n = (&node{stamp: s}).seal()
	}
	n.uniq = uniq
	return elem{Dot{s, uint32(i)}, n}, nil
}

// check refuses a tree whose stamps contradict each other.
func (n *node) check(created Stamp) error {
	for _, k := range n.kids {
		if k.n.stamp < n.cover() {
			return fmt.Errorf("field %q is older than what covers it", k.key)
		}
		if err := k.n.check(0); err != nil {
			return err
		}
	}
	for _, e := range n.elems {
		if e.n.dead == 0 && e.n.stamp < e.dot.Stamp {
			return fmt.Errorf("element %v is older than its birth", e.dot)
		}
		if err := e.n.check(0); err != nil {
			return err
		}
	}
	return nil
}

// sealAll seals a tree from its leaves up.
func (n *node) sealAll() *node {
	for _, k := range n.kids {
		k.n.sealAll()
	}
	for _, e := range n.elems {
		e.n.sealAll()
	}
	return n.seal()
}
