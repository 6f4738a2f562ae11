package operators

import (
	"errors"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.uber.org/goleak"

	"popfleet/replication/bsonval"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var now = time.UnixMilli(1_700_000_000_123)

// doc reads relaxed extended JSON; single quotes stand for double ones.
func doc(t testing.TB, json string) bson.D {
	t.Helper()
	var d bson.D
	if err := bson.UnmarshalExtJSON([]byte(strings.ReplaceAll(json, "'", `"`)), false, &d); err != nil {
		t.Fatalf("%s: %v", json, err)
	}
	return d
}

func value(t testing.TB, json string) any { return doc(t, `{'v':`+json+`}`)[0].Value }

func wantCode(t *testing.T, err error, code int32) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("got %v, want code %d", err, code)
	}
}

type updateCase struct {
	name, before, filter, update, arrayFilters, after string
	code                                              int32
}

func (c updateCase) run(t *testing.T, insert bool) (bson.D, []Effect, error) {
	t.Helper()
	before := doc(t, c.before)
	kept := bsonval.Clone(before)
	in := ApplyInput{Now: now, Insert: insert}
	if c.filter != "" {
		f, err := CompileFilter(doc(t, c.filter))
		if err != nil {
			t.Fatal(err)
		}
		matched, at, err := f.Match(before)
		if err != nil || !matched {
			t.Fatalf("the filter matches: %v, %v", matched, err)
		}
		in.Positions = at
	}
	var filters []bson.D
	if c.arrayFilters != "" {
		for _, f := range value(t, c.arrayFilters).(bson.A) {
			filters = append(filters, f.(bson.D))
		}
	}
	u, err := CompileUpdate(value(t, c.update), filters)
	if err != nil {
		return nil, nil, err
	}
	after, effects, err := u.Apply(before, in)
	if !bsonval.Identical(before, kept) {
		t.Fatalf("the document handed in was changed: %v", before)
	}
	return after, effects, err
}

func (c updateCase) test(t *testing.T) {
	after, effects, err := c.run(t, false)
	if c.code != 0 {
		wantCode(t, err, c.code)
		return
	}
	if err != nil || !bsonval.Identical(after, doc(t, c.after)) {
		t.Fatalf("got %v, %v", after, err)
	}
	replayed, err := ApplyEffects(doc(t, c.before), effects)
	if err != nil || !sameFields(replayed, after) {
		t.Fatalf("effects %+v make %v, %v; want %v", effects, replayed, err, after)
	}
}

// sameFields is Identical but for the order of the fields at the top.
func sameFields(a, b bson.D) bool {
	if len(a) != len(b) {
		return false
	}
	for _, e := range a {
		if !bsonval.Identical(bsonval.Field(b, e.Key), e.Value) {
			return false
		}
	}
	return true
}

func runUpdates(t *testing.T, cases []updateCase) {
	for _, c := range cases {
		t.Run(c.name, c.test)
	}
}

func TestFieldOperators(t *testing.T) {
	runUpdates(t, []updateCase{
		{name: "set", before: `{'_id':1,'a':1}`, update: `{'$set':{'a':2,'c.d':3}}`, after: `{'_id':1,'a':2,'c':{'d':3}}`},
		{name: "new fields come in order of their names", before: `{'_id':1}`, update: `{'$set':{'b':1},'$inc':{'a':1}}`, after: `{'_id':1,'a':1,'b':1}`},
		{name: "numeric names by value", before: `{'_id':1}`, update: `{'$set':{'10':1,'9':2}}`, after: `{'_id':1,'9':2,'10':1}`},
		{name: "empty operator", before: `{'_id':1}`, update: `{'$set':{}}`, after: `{'_id':1}`},
		{name: "set past the end", before: `{'_id':1,'a':[1]}`, update: `{'$set':{'a.3.b':2}}`, after: `{'_id':1,'a':[1,null,null,{'b':2}]}`},
		{name: "unset", before: `{'_id':1,'a':1,'b':{'c':1}}`, update: `{'$unset':{'a':'','b.c':'','x.y':''}}`, after: `{'_id':1,'b':{}}`},
		{name: "unset an element", before: `{'_id':1,'a':[1,2]}`, update: `{'$unset':{'a.0':'','a.7':''}}`, after: `{'_id':1,'a':[null,2]}`},
		{name: "unset below what is past the end", before: `{'_id':1,'a':[1]}`, update: `{'$unset':{'a.1.b':''}}`, after: `{'_id':1,'a':[1]}`},
		{name: "unset below a scalar", before: `{'_id':1,'a':1}`, update: `{'$unset':{'a.b':''}}`, after: `{'_id':1,'a':1}`},
		{name: "inc promotes", before: `{'_id':1,'a':2147483647}`, update: `{'$inc':{'a':1,'b':2.5}}`, after: `{'_id':1,'a':{'$numberLong':'2147483648'},'b':2.5}`},
		{name: "mul", before: `{'_id':1,'a':3}`, update: `{'$mul':{'a':2,'b':5,'c':2.5}}`, after: `{'_id':1,'a':6,'b':0,'c':0.0}`},
		{name: "min and max", before: `{'_id':1,'a':3,'b':3,'c':'x'}`, update: `{'$min':{'a':2,'d':1},'$max':{'b':2,'c':9}}`, after: `{'_id':1,'a':2,'b':3,'c':'x','d':1}`},
		{name: "max across types", before: `{'_id':1,'a':3}`, update: `{'$max':{'a':'x'}}`, after: `{'_id':1,'a':'x'}`},
		{name: "bit", before: `{'_id':1,'a':13}`, update: `{'$bit':{'a':{'and':10},'b':{'or':5},'c':{'xor':{'$numberLong':'3'}}}}`, after: `{'_id':1,'a':8,'b':5,'c':{'$numberLong':'3'}}`},
		{name: "current date", before: `{'_id':1}`, update: `{'$currentDate':{'a':true,'b':{'$type':'timestamp'}}}`, after: `{'_id':1,'a':{'$date':{'$numberLong':'1700000000123'}},'b':{'$timestamp':{'t':1700000000,'i':1}}}`},
		{name: "rename", before: `{'_id':1,'a':1,'b':{'c':2}}`, update: `{'$rename':{'a':'z.y','b.c':'b.d','nope':'q'}}`, after: `{'_id':1,'b':{'d':2},'z':{'y':1}}`},
		{name: "set on insert, not inserting", before: `{'_id':1}`, update: `{'$setOnInsert':{'a':1}}`, after: `{'_id':1}`},
		{name: "the same id", before: `{'_id':1}`, update: `{'$set':{'_id':1.0,'a':1}}`, after: `{'_id':1,'a':1}`},
	})
}

func TestArrayOperators(t *testing.T) {
	runUpdates(t, []updateCase{
		{name: "push", before: `{'_id':1,'a':[1]}`, update: `{'$push':{'a':[2],'b':1}}`, after: `{'_id':1,'a':[1,[2]],'b':[1]}`},
		{name: "push each, position", before: `{'_id':1,'a':[1,2]}`, update: `{'$push':{'a':{'$each':[8,9],'$position':1}}}`, after: `{'_id':1,'a':[1,8,9,2]}`},
		{name: "position from the end", before: `{'_id':1,'a':[1,2]}`, update: `{'$push':{'a':{'$each':[9],'$position':-1}}}`, after: `{'_id':1,'a':[1,9,2]}`},
		{name: "position beyond the start", before: `{'_id':1,'a':[1,2]}`, update: `{'$push':{'a':{'$each':[9],'$position':-7}}}`, after: `{'_id':1,'a':[9,1,2]}`},
		{name: "sort of a sorted array", before: `{'_id':1,'a':[1,5]}`, update: `{'$push':{'a':{'$each':[7,3],'$sort':1}}}`, after: `{'_id':1,'a':[1,3,5,7]}`},
		{name: "sort of an unsorted array", before: `{'_id':1,'a':[5,1]}`, update: `{'$push':{'a':{'$each':[3],'$sort':-1}}}`, after: `{'_id':1,'a':[5,3,1]}`},
		{name: "sort by fields, slice", before: `{'_id':1,'a':[{'s':1,'t':2},{'s':2,'t':1}]}`, update: `{'$push':{'a':{'$each':[{'s':2,'t':0}],'$sort':{'s':-1,'t':1},'$slice':2}}}`, after: `{'_id':1,'a':[{'s':2,'t':0},{'s':2,'t':1}]}`},
		{name: "slice from the end", before: `{'_id':1,'a':[1,2]}`, update: `{'$push':{'a':{'$each':[3],'$slice':-2}}}`, after: `{'_id':1,'a':[2,3]}`},
		{name: "slice of a new array", before: `{'_id':1}`, update: `{'$push':{'a':{'$each':[3,1,2],'$slice':2,'$sort':1}}}`, after: `{'_id':1,'a':[1,2]}`},
		{name: "slice to nothing", before: `{'_id':1,'a':[1]}`, update: `{'$push':{'a':{'$each':[],'$slice':0}}}`, after: `{'_id':1,'a':[]}`},
		{name: "push past the end", before: `{'_id':1,'a':[1]}`, update: `{'$push':{'a.2':5}}`, after: `{'_id':1,'a':[1,null,[5]]}`},
		{name: "add to set", before: `{'_id':1,'a':[1,1]}`, update: `{'$addToSet':{'a':1.0,'b':{'$each':[1,1,2]}}}`, after: `{'_id':1,'a':[1,1],'b':[1,2]}`},
		{name: "add a document to set", before: `{'_id':1,'a':[{'x':1,'y':2}]}`, update: `{'$addToSet':{'a':{'y':2,'x':1}}}`, after: `{'_id':1,'a':[{'x':1,'y':2},{'y':2,'x':1}]}`},
		{name: "pop", before: `{'_id':1,'a':[1,2],'b':[1,2],'c':[]}`, update: `{'$pop':{'a':1,'b':-1,'c':1,'d':1}}`, after: `{'_id':1,'a':[1],'b':[2],'c':[]}`},
		{name: "pull a value", before: `{'_id':1,'a':[1,2.0,[2],2]}`, update: `{'$pull':{'a':2}}`, after: `{'_id':1,'a':[1,[2]]}`},
		{name: "pull by condition", before: `{'_id':1,'a':[1,5,'x']}`, update: `{'$pull':{'a':{'$gt':1}}}`, after: `{'_id':1,'a':[1,'x']}`},
		{name: "pull documents", before: `{'_id':1,'a':[{'b':1,'c':1},{'b':2},3]}`, update: `{'$pull':{'a':{'b':{'$lt':2}}}}`, after: `{'_id':1,'a':[{'b':2},3]}`},
		{name: "pull with or", before: `{'_id':1,'a':[{'b':1},{'c':1},{'d':1}]}`, update: `{'$pull':{'a':{'$or':[{'b':1},{'c':1}]}}}`, after: `{'_id':1,'a':[{'d':1}]}`},
		{name: "pull by regular expression", before: `{'_id':1,'a':['ab','cd']}`, update: `{'$pull':{'a':{'$regularExpression':{'pattern':'^a','options':''}}}}`, after: `{'_id':1,'a':['cd']}`},
		{name: "pull all", before: `{'_id':1,'a':[1,2,[1],3]}`, update: `{'$pullAll':{'a':[1.0,3]}}`, after: `{'_id':1,'a':[2,[1]]}`},
	})
}

func TestPositionalOperators(t *testing.T) {
	runUpdates(t, []updateCase{
		{name: "first", before: `{'_id':1,'a':[1,5,5]}`, filter: `{'a':5}`, update: `{'$set':{'a.$':9}}`, after: `{'_id':1,'a':[1,9,5]}`},
		{name: "first by elemMatch", before: `{'_id':1,'a':[{'x':1,'y':1},{'x':1,'y':2}]}`, filter: `{'a':{'$elemMatch':{'x':1,'y':2}}}`, update: `{'$inc':{'a.$.x':1}}`, after: `{'_id':1,'a':[{'x':1,'y':1},{'x':2,'y':2}]}`},
		{name: "first through documents", before: `{'_id':1,'a':[{'x':1},{'x':2}]}`, filter: `{'a.x':2}`, update: `{'$unset':{'a.$.x':1}}`, after: `{'_id':1,'a':[{'x':1},{}]}`},
		{name: "all", before: `{'_id':1,'a':[1,2]}`, update: `{'$inc':{'a.$[]':1}}`, after: `{'_id':1,'a':[2,3]}`},
		{name: "all, nested", before: `{'_id':1,'a':[{'b':[1]},{'b':[2,3]}]}`, update: `{'$mul':{'a.$[].b.$[]':2}}`, after: `{'_id':1,'a':[{'b':[2]},{'b':[4,6]}]}`},
		{name: "filtered", before: `{'_id':1,'a':[{'g':1},{'g':5}]}`, update: `{'$set':{'a.$[e].ok':true}}`, arrayFilters: `[{'e.g':{'$gt':2}}]`, after: `{'_id':1,'a':[{'g':1},{'g':5,'ok':true}]}`},
		{name: "two filters on one array", before: `{'_id':1,'a':[1,5]}`, update: `{'$set':{'a.$[x]':0,'a.$[y]':9}}`, arrayFilters: `[{'x':1},{'$or':[{'y':5},{'y':6}]}]`, after: `{'_id':1,'a':[0,9]}`},
		{name: "filtered, none meets", before: `{'_id':1,'a':[1]}`, update: `{'$set':{'a.$[x]':0}}`, arrayFilters: `[{'x':7}]`, after: `{'_id':1,'a':[1]}`},
		{name: "filters in each other's way", before: `{'_id':1,'a':[1]}`, update: `{'$set':{'a.$[x]':0},'$inc':{'a.$[y]':1}}`, arrayFilters: `[{'x':1},{'y':1}]`, code: 40},
		{name: "no position", before: `{'_id':1,'a':[1]}`, filter: `{'_id':1}`, update: `{'$set':{'a.$':9}}`, code: 2},
		{name: "no position from a negation", before: `{'_id':1,'a':[1]}`, filter: `{'a':{'$ne':4}}`, update: `{'$set':{'a.$':9}}`, code: 2},
		{name: "not an array", before: `{'_id':1,'a':1}`, update: `{'$set':{'a.$[]':9}}`, code: 2},
		{name: "no array", before: `{'_id':1}`, update: `{'$set':{'a.$[]':9}}`, code: 2},
		{name: "filter not given", before: `{'_id':1}`, update: `{'$set':{'a.$[x]':9}}`, code: 2},
		{name: "filter not used", before: `{'_id':1}`, update: `{'$set':{'a':9}}`, arrayFilters: `[{'x':1}]`, code: 9},
		{name: "filter twice", before: `{'_id':1}`, update: `{'$set':{'a.$[x]':9}}`, arrayFilters: `[{'x':1},{'x':2}]`, code: 9},
		{name: "filter of two names", before: `{'_id':1}`, update: `{'$set':{'a.$[x]':9}}`, arrayFilters: `[{'x':1,'y':2}]`, code: 9},
		{name: "filter of a bad name", before: `{'_id':1}`, update: `{'$set':{'a.$[X]':9}}`, arrayFilters: `[{'X':1}]`, code: 2},
		{name: "filter beside an index", before: `{'_id':1}`, update: `{'$set':{'a.$[]':9,'a.0':1}}`, code: 40},
		{name: "position first", before: `{'_id':1}`, update: `{'$set':{'$[].a':9}}`, code: 2},
		{name: "two positions", before: `{'_id':1}`, update: `{'$set':{'a.$.b.$':9}}`, code: 2},
	})
}

func TestUpdatesRefused(t *testing.T) {
	runUpdates(t, []updateCase{
		{name: "unknown operator", before: `{}`, update: `{'$nope':{'a':1}}`, code: 9},
		{name: "no document of fields", before: `{}`, update: `{'$set':5}`, code: 9},
		{name: "operators and fields", before: `{}`, update: `{'$set':{'a':1},'b':1}`, code: 9},
		{name: "fields and operators", before: `{}`, update: `{'b':1,'$set':{'a':1}}`, code: 52},
		{name: "no update", before: `{}`, update: `5`, code: 9},
		{name: "one path twice", before: `{}`, update: `{'$set':{'a':1},'$inc':{'a':1}}`, code: 40},
		{name: "a path above another", before: `{}`, update: `{'$set':{'a.b':1,'a':1,'a-b':1}}`, code: 40},
		{name: "rename into its own", before: `{}`, update: `{'$rename':{'a':'a.b'}}`, code: 40},
		{name: "empty path", before: `{}`, update: `{'$set':{'':1}}`, code: 56},
		{name: "empty name in a path", before: `{}`, update: `{'$set':{'a..b':1}}`, code: 56},
		{name: "dollar name", before: `{}`, update: `{'$set':{'a.$b':1}}`, code: 52},
		{name: "through a scalar", before: `{'a':1}`, update: `{'$set':{'a.b':1}}`, code: 28},
		{name: "through null", before: `{'a':null}`, update: `{'$inc':{'a.b':1}}`, code: 28},
		{name: "name in an array", before: `{'a':[]}`, update: `{'$push':{'a.b':1}}`, code: 28},
		{name: "pull below a scalar", before: `{'a':1}`, update: `{'$pull':{'a.b':1}}`, code: 28},
		{name: "far past the end", before: `{'a':[]}`, update: `{'$set':{'a.1500001':1}}`, code: 2},
		{name: "id changed", before: `{'_id':1}`, update: `{'$set':{'_id':2}}`, code: 66},
		{name: "id unset", before: `{'_id':1}`, update: `{'$unset':{'_id':1}}`, code: 66},
		{name: "id changed inside", before: `{'_id':{'a':1}}`, update: `{'$inc':{'_id.a':1}}`, code: 66},
		{name: "id replaced", before: `{'_id':1}`, update: `{'_id':2}`, code: 66},
		{name: "inc by text", before: `{}`, update: `{'$inc':{'a':'1'}}`, code: 14},
		{name: "inc of text", before: `{'a':'1'}`, update: `{'$inc':{'a':1}}`, code: 14},
		{name: "inc of null", before: `{'a':null}`, update: `{'$inc':{'a':1}}`, code: 14},
		{name: "inc beyond 64 bits", before: `{'a':{'$numberLong':'9223372036854775807'}}`, update: `{'$inc':{'a':1}}`, code: 2},
		{name: "bit of a double", before: `{'a':1.0}`, update: `{'$bit':{'a':{'or':1}}}`, code: 2},
		{name: "bit by a double", before: `{}`, update: `{'$bit':{'a':{'or':1.0}}}`, code: 2},
		{name: "bit unknown", before: `{}`, update: `{'$bit':{'a':{'nand':1}}}`, code: 2},
		{name: "current date of a number", before: `{}`, update: `{'$currentDate':{'a':1}}`, code: 2},
		{name: "rename through an array", before: `{'a':[{'b':1}]}`, update: `{'$rename':{'a.0.b':'c'}}`, code: 2},
		{name: "rename into an array", before: `{'a':[1],'b':1}`, update: `{'$rename':{'b':'a.0'}}`, code: 2},
		{name: "rename to itself", before: `{'a':1}`, update: `{'$rename':{'a':'a'}}`, code: 2},
		{name: "push to a scalar", before: `{'a':1}`, update: `{'$push':{'a':1}}`, code: 2},
		{name: "push with an unknown clause", before: `{}`, update: `{'$push':{'a':{'$each':[],'$x':1}}}`, code: 2},
		{name: "push with half a slice", before: `{}`, update: `{'$push':{'a':{'$each':[],'$slice':1.5}}}`, code: 2},
		{name: "push sorted by 2", before: `{}`, update: `{'$push':{'a':{'$each':[],'$sort':2}}}`, code: 2},
		{name: "add to a scalar", before: `{'a':1}`, update: `{'$addToSet':{'a':1}}`, code: 2},
		{name: "add each of a scalar", before: `{}`, update: `{'$addToSet':{'a':{'$each':1}}}`, code: 14},
		{name: "add each and more", before: `{}`, update: `{'$addToSet':{'a':{'$each':[1],'$slice':1}}}`, code: 2},
		{name: "pop of a scalar", before: `{'a':1}`, update: `{'$pop':{'a':1}}`, code: 14},
		{name: "pop by 2", before: `{}`, update: `{'$pop':{'a':2}}`, code: 9},
		{name: "pull from a scalar", before: `{'a':1}`, update: `{'$pull':{'a':1}}`, code: 2},
		{name: "pull all of a scalar", before: `{}`, update: `{'$pullAll':{'a':1}}`, code: 2},
	})
}

func TestReplacementAndPipelines(t *testing.T) {
	runUpdates(t, []updateCase{
		{name: "replacement keeps the id", before: `{'_id':1,'a':1,'b':{'c':1,'d':2}}`, update: `{'b':{'c':1},'e':1}`, after: `{'_id':1,'b':{'c':1},'e':1}`},
		{name: "order inside a document counts", before: `{'_id':1,'b':{'c':1,'d':2}}`, update: `{'b':{'d':2,'c':1}}`, after: `{'_id':1,'b':{'d':2,'c':1}}`},
		{name: "pipeline", before: `{'_id':1,'n':2,'o':{'p':1,'q':1}}`, update: `[{'$set':{'m':{'$add':['$n',1]},'o.p':'$n'}},{'$unset':'n'},{'$set':{'k':'$m'}}]`, after: `{'_id':1,'o':{'p':2,'q':1},'m':3,'k':3}`},
		{name: "set goes into nested documents and arrays", before: `{'_id':1,'o':{'p':1},'a':[{'x':1},2]}`, update: `[{'$addFields':{'o':{'q':5},'a.y':7}}]`, after: `{'_id':1,'o':{'p':1,'q':5},'a':[{'x':1,'y':7},{'y':7}]}`},
		{name: "remove", before: `{'_id':1,'a':1}`, update: `[{'$set':{'a':'$$REMOVE','b':'$nope'}}]`, after: `{'_id':1}`},
		{name: "replace with", before: `{'_id':1,'a':{'b':2}}`, update: `[{'$replaceWith':'$a'}]`, after: `{'_id':1,'b':2}`},
		{name: "replace root, merged", before: `{'_id':1,'a':{'b':2}}`, update: `[{'$replaceRoot':{'newRoot':{'$mergeObjects':['$$ROOT',{'c':1}]}}}]`, after: `{'_id':1,'a':{'b':2},'c':1}`},
		{name: "project", before: `{'_id':1,'a':1,'b':2}`, update: `[{'$project':{'a':1,'c':{'$multiply':['$b',2]}}}]`, after: `{'_id':1,'a':1,'c':4}`},
		{name: "now", before: `{'_id':1}`, update: `[{'$set':{'t':'$$NOW'}}]`, after: `{'_id':1,'t':{'$date':{'$numberLong':'1700000000123'}}}`},
		{name: "stage refused", before: `{}`, update: `[{'$match':{'a':1}}]`, code: 72},
		{name: "two stages in one", before: `{}`, update: `[{'$set':{'a':1},'$unset':'b'}]`, code: 40323},
		{name: "unknown expression", before: `{}`, update: `[{'$set':{'a':{'$nope':1}}}]`, code: 168},
		{name: "no document for a root", before: `{'_id':1}`, update: `[{'$replaceWith':'$a'}]`, code: 40228},
		{name: "pipeline changes the id", before: `{'_id':1}`, update: `[{'$set':{'_id':2}}]`, code: 66},
		{name: "array filters with a pipeline", before: `{}`, update: `[]`, arrayFilters: `[{'x':1}]`, code: 9},
		{name: "conflicting additions", before: `{}`, update: `[{'$set':{'a':1,'a.b':1}}]`, code: 40176},
	})
}

func TestUpserts(t *testing.T) {
	for _, c := range []struct {
		name, filter, update, after string
		code                        int32
	}{
		{"equalities", `{'a':1,'b.c':{'$eq':2},'$and':[{'d':3}],'e':{'$gt':1},'$or':[{'f':4}]}`, `{'$set':{'x':1},'$setOnInsert':{'y':2}}`, `{'a':1,'b':{'c':2},'d':3,'f':4,'x':1,'y':2}`, 0},
		{"the id goes first", `{'a':1,'_id':7}`, `{'$inc':{'n':1}}`, `{'_id':7,'a':1,'n':1}`, 0},
		{"id by update", `{'a':1}`, `{'$set':{'_id':7}}`, `{'_id':7,'a':1}`, 0},
		{"replacement takes the id only", `{'_id':7,'a':1}`, `{'b':1}`, `{'_id':7,'b':1}`, 0},
		{"all", `{'a':{'$all':[1]}}`, `{'$set':{'b':1}}`, `{'a':1,'b':1}`, 0},
		{"twice", `{'a':1,'$and':[{'a':1}]}`, `{'$set':{'b':1}}`, ``, 54},
		{"above", `{'a.b':1,'a':{'c':1}}`, `{'$set':{'b':1}}`, ``, 54},
		{"array for an id", `{}`, `{'$set':{'_id':[1]}}`, ``, 53},
		{"another id", `{'_id':1}`, `{'_id':2}`, ``, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := CompileFilter(doc(t, c.filter))
			if err != nil {
				t.Fatal(err)
			}
			u, err := CompileUpdate(value(t, c.update), nil)
			if err != nil {
				t.Fatal(err)
			}
			seed, err := f.InsertDocument(u.IsReplacement())
			var after bson.D
			if err == nil {
				after, _, err = u.Apply(seed, ApplyInput{Now: now, Insert: true})
			}
			if c.code != 0 {
				wantCode(t, err, c.code)
			} else if c.after != "" && (err != nil || !bsonval.Identical(after, doc(t, c.after))) {
				t.Fatalf("got %v, %v", after, err)
			}
		})
	}
}

// TestEffects holds what replication gets: the operator's meaning where it can be kept.
func TestEffects(t *testing.T) {
	for _, c := range []struct {
		updateCase
		want []Effect
	}{
		{updateCase{name: "counters stay counters", before: `{'_id':1,'n':1}`, update: `{'$inc':{'n':2},'$max':{'m':1},'$set':{'s':1}}`},
			[]Effect{{Kind: Max, Path: []string{"m"}, Value: int32(1)}, {Kind: Inc, Path: []string{"n"}, Value: int32(2)}, {Kind: Set, Path: []string{"s"}, Value: int32(1)}}},
		{updateCase{name: "a write of what is there is a write", before: `{'_id':1,'s':1}`, update: `{'$set':{'s':1},'$unset':{'t':1}}`},
			[]Effect{{Kind: Set, Path: []string{"s"}, Value: int32(1)}, {Kind: Unset, Path: []string{"t"}}}},
		{updateCase{name: "sorted push inserts", before: `{'_id':1,'a':[1,5]}`, update: `{'$push':{'a':{'$each':[3],'$sort':1,'$slice':2}}}`},
			[]Effect{{Kind: Push, Path: []string{"a"}, Values: bson.A{int32(3)}, Index: 1}, {Kind: Pull, Path: []string{"a"}, Values: bson.A{int32(5)}, Indexes: []int{2}}}},
		{updateCase{name: "a pull names what it saw", before: `{'_id':1,'a':[1,2,1]}`, update: `{'$pull':{'a':1,'b':1}}`},
			[]Effect{{Kind: Pull, Path: []string{"a"}, Values: bson.A{int32(1), int32(1)}, Indexes: []int{0, 2}}}},
		{updateCase{name: "add to set keeps what is there too", before: `{'_id':1,'a':[1]}`, update: `{'$addToSet':{'a':1}}`},
			[]Effect{{Kind: AddToSet, Path: []string{"a"}, Values: bson.A{int32(1)}}}},
		{updateCase{name: "position resolved", before: `{'_id':1,'a':[1,2]}`, filter: `{'a':2}`, update: `{'$inc':{'a.$':1}}`},
			[]Effect{{Kind: Inc, Path: []string{"a", "1"}, Value: int32(1)}}},
		{updateCase{name: "past the end", before: `{'_id':1,'a':[1]}`, update: `{'$inc':{'a.2':1}}`},
			[]Effect{{Kind: Push, Path: []string{"a"}, Values: bson.A{nil, int32(1)}, Index: 1}}},
		{updateCase{name: "coarse", before: `{'_id':1,'n':2}`, update: `{'$mul':{'n':2}}`},
			[]Effect{{Kind: Set, Path: []string{"n"}, Value: int32(4), Coarse: true}}},
		{updateCase{name: "replacement by difference", before: `{'_id':1,'n':2,'o':{'p':1,'q':1}}`, update: `{'o':{'p':1,'q':2}}`},
			[]Effect{{Kind: Unset, Path: []string{"n"}, Coarse: true}, {Kind: Set, Path: []string{"o", "q"}, Value: int32(2), Coarse: true}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, effects, err := c.run(t, false)
			if err != nil || len(effects) != len(c.want) {
				t.Fatalf("got %+v, %v", effects, err)
			}
			for i, e := range effects {
				w := c.want[i]
				if e.Op == "" || e.Kind != w.Kind || !bsonval.Equal(paths(e), paths(w)) || !bsonval.Identical(e.Value, w.Value) ||
					!bsonval.Identical(e.Values, w.Values) || e.Index != w.Index || e.Coarse != w.Coarse || len(e.Indexes) != len(w.Indexes) {
					t.Fatalf("effect %d: got %+v, want %+v", i, e, w)
				}
			}
		})
	}
}

func paths(e Effect) string { return strings.Join(e.Path, ".") }
