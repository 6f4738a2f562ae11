package operators

import (
	"math/rand/v2"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

// FuzzUpdate: whatever bytes come for a document, a filter, an update and array filters, nothing panics, the document
// handed in stays as it was, and the effects make the after-image.
func FuzzUpdate(f *testing.F) {
	for _, u := range []string{`{'$set':{'a.$[x].b':1},'$inc':{'n':1}}`, `{'$push':{'a':{'$each':[1],'$sort':{'b':1},'$slice':-2,'$position':1}}}`, `{'$pull':{'a':{'b':{'$gt':1}}},'$rename':{'n':'m.o'}}`,
		`{'$unset':{'a.5.b':1},'$bit':{'n':{'xor':5}},'$addToSet':{'s':{'$each':[1,2]}}}`, `{'b':1}`, `{'$set':{'a.$.b':5},'$pop':{'s':1},'$mul':{'n':2},'$max':{'s.0':7}}`} {
		seed := [][]byte{nil, nil, nil, nil}
		for i, json := range []string{`{'_id':1,'a':[{'b':1},{'b':2}],'n':5,'s':[1]}`, `{'a.b':{'$gte':1},'n':{'$not':{'$lt':2}}}`, u, `{'x.b':{'$in':[1,null]}}`} {
			seed[i], _ = bson.Marshal(doc(f, json))
		}
		f.Add(seed[0], seed[1], seed[2], seed[3])
	}
	f.Fuzz(func(t *testing.T, rawDoc, rawFilter, rawUpdate, rawArrayFilter []byte) {
		if len(rawDoc)+len(rawFilter)+len(rawUpdate)+len(rawArrayFilter) > 4<<10 {
			return
		}
		parts := make([]bson.D, 4)
		for i, raw := range [][]byte{rawDoc, rawFilter, rawUpdate, rawArrayFilter} {
			d, err := bsonval.Decode(raw)
			if err != nil {
				return
			}
			parts[i] = d
		}
		filter, err := CompileFilter(parts[1])
		if err != nil {
			return
		}
		_, at, _ := filter.Match(parts[0])
		arrayFilters := []bson.D{parts[3]}
		if len(parts[3]) == 0 {
			arrayFilters = nil
		}
		u, err := CompileUpdate(parts[2], arrayFilters)
		if err != nil {
			return
		}
		checkApply(t, u, parts[0], ApplyInput{Now: now, Positions: at})
	})
}

func checkApply(t *testing.T, u *Update, d bson.D, in ApplyInput) {
	t.Helper()
	kept := bsonval.Clone(d)
	after, effects, err := u.Apply(d, in)
	if !bsonval.Identical(d, kept) {
		t.Fatalf("the document was changed: %v, was %v", d, kept)
	}
	if err != nil || repeats(d) || repeats(after) {
		return
	}
	replayed, err := ApplyEffects(d, effects)
	if err != nil || !sameFields(replayed, after) {
		t.Fatalf("effects %+v make %v, %v; want %v of %v", effects, replayed, err, after, d)
	}
}

// repeats says whether a name comes twice at the top: which of the two a path means is open.
func repeats(d bson.D) bool {
	for i := range d {
		if bsonval.Find(d[:i], d[i].Key) >= 0 {
			return true
		}
	}
	return false
}

// TestEffectsOfRandomReplacements: the difference of two random documents makes the second of the first.
func TestEffectsOfRandomReplacements(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 20_000 {
		before, after := randomDocument(r, 3), randomDocument(r, 3)
		u, err := CompileUpdate(after, nil)
		if err != nil {
			t.Fatal(err)
		}
		checkApply(t, u, before, ApplyInput{})
	}
}

func randomDocument(r *rand.Rand, depth int) bson.D {
	d := bson.D{}
	for _, i := range r.Perm(4)[:r.IntN(5)] {
		d = append(d, bson.E{Key: string(rune('a' + i)), Value: randomValue(r, depth)})
	}
	return d
}

func randomValue(r *rand.Rand, depth int) any {
	switch n := r.IntN(6); {
	case n < 2 && depth > 0:
		return randomDocument(r, depth-1)
	case n == 2 && depth > 0:
		return bson.A{randomValue(r, depth-1), int32(r.IntN(2))}
	case n == 3:
		return float64(r.IntN(2))
	}
	return int32(r.IntN(3))
}
