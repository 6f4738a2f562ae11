package crdt

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

// FromDocument is the state that Document wrote. A document without the hidden field is one that was there before
// replication: all of it is older than any write.
func FromDocument(doc bson.D) (Doc, error) {
	i := bsonval.Find(doc, Field)
	if i < 0 {
		return adopt(doc)
	}
	state, ok := doc[i].Value.(bson.D)
	if !ok {
		return Doc{}, fmt.Errorf("read %s: it is %s, not a document", Field, bsonval.TypeName(doc[i].Value))
	}
	body := make(bson.D, 0, len(doc)-1)
	body = append(append(body, doc[:i]...), doc[i+1:]...)
	d, err := fromParts(body, state)
	if err != nil {
		return Doc{}, fmt.Errorf("read %s: %w", Field, err)
	}
	return d, nil
}

func adopt(doc bson.D) (Doc, error) {
	d, err := Doc{}.Insert(Write{Stamp: Adopted}, doc)
	if err != nil {
		return Doc{}, fmt.Errorf("adopt: %w", err)
	}
	d.dots = nil
	return d, nil
}

func fromParts(body, state bson.D) (Doc, error) {
	if err := bsonval.CheckDepth(body); err != nil {
		return Doc{}, err
	}
	if err := bsonval.CheckDepth(state); err != nil {
		return Doc{}, err
	}
	if len(body) == 0 || body[0].Key != "_id" {
		return Doc{}, fmt.Errorf("the first field is not _id")
	}
	d := Doc{id: body[0].Value, alive: true}
	r := newDecoder()
	if err := r.header(&d, state); err != nil {
		return Doc{}, err
	}
	if !d.Alive() {
		return d, nil
	}
	root, err := r.tree(body[1:], d.created)
	if err != nil {
		return Doc{}, err
	}
	d.root = root
	return d, nil
}

// header reads what is about the whole document, and sorts the rest by what it is about.
func (r *decoder) header(d *Doc, state bson.D) error {
	for _, f := range state {
		var err error
		switch f.Key {
		case keyLocal:
			d.local, err = natural(f.Value)
		case keyCausal:
			d.deaths, d.alive, err = livesOf(f.Value)
		case keyCreated:
			d.created, err = stampOf(f.Value)
		case keyRetry:
			d.retry, err = retryOf(f.Value)
		default:
			err = r.entry(d, f)
		}
		if err != nil {
			return fmt.Errorf("%q: %w", f.Key, err)
		}
	}
	return nil
}

func (r *decoder) entry(d *Doc, f bson.E) error {
	if f.Key == "" {
		return fmt.Errorf("unknown key")
	}
	if strings.HasPrefix(f.Key, "/") {
		r.stamps[f.Key] = f.Value
		return nil
	}
	if f.Key[0] >= '0' && f.Key[0] <= '9' {
		return r.dot(d, f)
	}
	part, ok := r.parts[f.Key]
	entries, isDoc := f.Value.(bson.D)
	if !ok || !isDoc {
		return fmt.Errorf("unknown key")
	}
	for _, e := range entries {
		part[e.Key] = e.Value
	}
	return nil
}

func (r *decoder) dot(d *Doc, f bson.E) error {
	o, err := strconv.ParseUint(f.Key, 10, 8)
	if err != nil {
		return err
	}
	seq, err := natural(f.Value)
	d.dots = joinDots(d.dots, []Dot1{{Origin(o), seq}})
	return err
}

// decoder holds what the hidden field says, by path.
type decoder struct {
	stamps map[string]any
	parts  map[string]map[string]any
	shown  map[*node][]*node // the elements that show, in order
}

func newDecoder() *decoder {
	r := &decoder{stamps: map[string]any{}, parts: map[string]map[string]any{}, shown: map[*node][]*node{}}
	for _, k := range []string{keyGaps, keyAbsent, keyClash, keyTallies, keyExtremes, keyElements, keyHidden} {
		r.parts[k] = map[string]any{}
	}
	return r
}

// take is an entry of a part, which is then used up.
func (r *decoder) take(part, path string) (any, bool) {
	v, ok := r.parts[part][path]
	if ok {
		delete(r.parts[part], path)
	}
	return v, ok
}

func (r *decoder) tree(body bson.D, created Stamp) (*node, error) {
	root := &node{kind: document}
	if err := r.fields(root, "", body, created); err != nil {
		return nil, err
	}
	if err := r.invisible(root, created); err != nil {
		return nil, err
	}
	if err := root.check(created); err != nil {
		return nil, err
	}
	return root.sealAll(), nil
}

func (r *decoder) fields(n *node, path string, body bson.D, inherited Stamp) error {
	for _, f := range body {
		i, dup := findKid(n.kids, f.Key)
		if dup {
			return fmt.Errorf("field %q twice", f.Key)
		}
		k, based, err := r.node(below(path, f.Key), f.Value, inherited)
		if err != nil {
			return err
		}
		n.kids = slices.Insert(n.kids, i, kid{f.Key, k})
		if based {
			n.base = append(n.base, f.Key)
		}
	}
	return r.gaps(n, path)
}

// gaps puts the names of fields that are gone where they were.
func (r *decoder) gaps(n *node, path string) error {
	v, ok := r.take(keyGaps, gapsOf(path))
	if !ok {
		return nil
	}
	list, ok := v.(bson.A)
	if !ok || len(list)%2 != 0 {
		return fmt.Errorf("%q: malformed gaps", path)
	}
	for i := 0; i < len(list); i += 2 {
		at, err := natural(list[i])
		name, isText := list[i+1].(string)
		if err != nil || !isText || at > uint64(len(n.base)) || slices.Contains(n.base, name) {
			return fmt.Errorf("%q: malformed gap", path)
		}
		n.base = slices.Insert(n.base, int(at), name)
	}
	return nil
}

// node reads what is at a path that shows.
func (r *decoder) node(path string, v any, inherited Stamp) (n *node, based bool, err error) {
	n = &node{stamp: inherited, kind: scalar, val: v}
	based = true
	if s, ok := r.stamps[path]; ok {
		if based, err = n.decided(s); err != nil {
			return nil, false, fmt.Errorf("%q: %w", path, err)
		}
		delete(r.stamps, path)
	}
	if err := r.attached(path, n, true); err != nil {
		return nil, false, err
	}
	switch x := v.(type) {
	case bson.D:
		n.kind, n.val = document, nil
		err = r.fields(n, path, x, n.cover())
	case bson.A:
		n.kind, n.val = array, nil
		err = r.array(n, path, x)
	}
	return n, based, err
}

// decided reads the stamp of the deciding write. See encoder.stamp.
func (n *node) decided(v any) (based bool, err error) {
	if v == nil {
		n.kind, n.val = absent, nil
		return false, nil
	}
	s, err := integerOf(v)
	if err != nil {
		return false, err
	}
	n.stamp = Stamp(max(s, -s))
	return s > 0, nil
}

// attached reads clash, tallies and extremes of a path.
func (r *decoder) attached(path string, n *node, shows bool) (err error) {
	fail := func(err error) error { return fmt.Errorf("%q: %w", path, err) }
	if v, ok := r.take(keyClash, path); ok {
		if n.clash, err = stampOf(v); err != nil {
			return fail(err)
		}
	}
	var base any
	explicit := false
	if v, ok := r.take(keyTallies, path); ok {
		if base, explicit, err = n.readTallies(v); err != nil {
			return fail(err)
		}
	}
	if v, ok := r.take(keyExtremes, path); ok {
		b, there, err := n.readExtremes(v)
		if err != nil {
			return fail(err)
		}
		if there {
			base, explicit = b, true
		}
	}
	if explicit {
		return n.rebase(base)
	}
	if shows && n.kind == scalar && len(n.inc) > 0 {
		if sum := sumOf(n.inc, n.seen); sum.terms > 0 {
			if b, ok := baseFrom(n.val, sum); ok {
				n.val = b
			}
		}
	}
	return nil
}

// rebase puts the value underneath in the visible one's place.
func (n *node) rebase(v any) error {
	list, ok := v.(bson.A)
	if !ok || len(list) > 1 {
		return fmt.Errorf("malformed base")
	}
	n.kind, n.val = absent, nil
	if len(list) == 1 {
		n.kind, n.val = scalar, list[0]
		switch list[0].(type) {
		case bson.D, bson.A:
			return fmt.Errorf("a document or array as base")
		}
	}
	return nil
}

// invisible reads what is there but does not show: unset paths, tallies of fields that are gone.
func (r *decoder) invisible(root *node, created Stamp) error {
	var paths []string
	for _, part := range []string{keyAbsent, keyClash, keyTallies, keyExtremes} {
		for p := range r.parts[part] {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	for _, p := range slices.Compact(paths) {
		n, err := r.place(root, p, created)
		if err != nil {
			return err
		}
		if v, ok := r.take(keyAbsent, p); ok {
			if n.stamp, err = stampOf(v); err != nil {
				return fmt.Errorf("%q: %w", p, err)
			}
		}
		if err := r.attached(p, n, false); err != nil {
			return err
		}
	}
	if len(r.stamps)+len(r.parts[keyGaps])+len(r.parts[keyElements])+len(r.parts[keyHidden]) > 0 {
		return fmt.Errorf("state of paths that are not there")
	}
	return nil
}

// place finds or makes the node at a path that doesn't show.
func (r *decoder) place(n *node, path string, inherited Stamp) (*node, error) {
	names, err := steps(path)
	if err != nil {
		return nil, err
	}
	if len(names) > bsonval.MaxDepth {
		return nil, fmt.Errorf("path of %d steps", len(names))
	}
	for depth, step := range names {
		name, hidden := nameOf(step)
		cover := n.cover()
		if depth == 0 {
			cover = inherited
		}
		if shown, ok := r.shown[n]; ok && !hidden {
			i, isIndex := bsonval.Index(name)
			if !isIndex || i >= len(shown) {
				return nil, fmt.Errorf("%q: no such element", path)
			}
			n = shown[i]
			continue
		}
		i, ok := findKid(n.kids, name)
		if !ok {
			n.kids = slices.Insert(n.kids, i, kid{name, &node{stamp: cover}})
		}
		n = n.kids[i].n
	}
	return n, nil
}
