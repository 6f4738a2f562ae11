package operators

import (
	"slices"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

func TestFilters(t *testing.T) {
	for _, c := range []struct {
		filter string
		meets  []string
		misses []string
	}{
		{`{'a':1}`, []string{`{'a':1}`, `{'a':1.0}`, `{'a':[2,1]}`}, []string{`{}`, `{'a':2}`, `{'a':[[1]]}`, `{'a':'1'}`}},
		{`{'a':null}`, []string{`{}`, `{'a':null}`, `{'a':[null]}`}, []string{`{'a':1}`, `{'a':[]}`}},
		{`{'a.b':null}`, []string{`{}`, `{'a':1}`, `{'a':{}}`, `{'a':[{}]}`, `{'a':[{'b':1},{}]}`}, []string{`{'a':[]}`, `{'a':[1]}`, `{'a':{'b':1}}`}},
		{`{'a':[1,2]}`, []string{`{'a':[1,2]}`, `{'a':[[1,2],3]}`}, []string{`{'a':[2,1]}`, `{'a':1}`}},
		{`{'a':{'b':1,'c':2}}`, []string{`{'a':{'b':1,'c':2}}`}, []string{`{'a':{'c':2,'b':1}}`, `{'a':{'b':1}}`}},
		{`{'a.b':{'$gt':1}}`, []string{`{'a':{'b':2}}`, `{'a':[{'b':1},{'b':2}]}`, `{'a':[{'b':[0,9]}]}`}, []string{`{'a':{'b':'x'}}`, `{'a':[[{'b':2}]]}`}},
		{`{'a.0':1}`, []string{`{'a':[1,2]}`, `{'a':{'0':1}}`, `{'a':[{'0':1}]}`}, []string{`{'a':[2,1]}`, `{'a':[[1]]}`}},
		{`{'a.0.b':1}`, []string{`{'a':[{'b':1}]}`, `{'a':[[{'b':1}]]}`}, []string{`{'a':[{'b':2},{'b':1}]}`}},
		{`{'a':{'$lt':5}}`, []string{`{'a':4}`, `{'a':[9,4]}`}, []string{`{'a':null}`, `{}`, `{'a':true}`}},
		{`{'a':{'$gte':null}}`, []string{`{}`, `{'a':null}`}, []string{`{'a':1}`}},
		{`{'a':{'$gt':{'$minKey':1}}}`, []string{`{'a':1}`, `{}`}, nil},
		{`{'a':{'$gt':1,'$lt':3}}`, []string{`{'a':2}`, `{'a':[0,5]}`}, []string{`{'a':3}`}},
		{`{'a':{'$ne':1}}`, []string{`{}`, `{'a':[2]}`}, []string{`{'a':[1,2]}`}},
		{`{'a':{'$in':[1,null,'x']}}`, []string{`{}`, `{'a':1.0}`, `{'a':['x']}`}, []string{`{'a':2}`}},
		{`{'a':{'$in':[{'$regularExpression':{'pattern':'^x','options':'i'}}]}}`, []string{`{'a':'Xy'}`}, []string{`{'a':'y'}`}},
		{`{'a':{'$nin':[1]}}`, []string{`{}`, `{'a':2}`}, []string{`{'a':[1]}`}},
		{`{'$or':[{'a':1},{'b':1}]}`, []string{`{'b':1}`}, []string{`{}`}},
		{`{'$nor':[{'a':1},{'b':1}]}`, []string{`{}`}, []string{`{'b':1}`}},
		{`{'$and':[{'a':1},{'b':1}],'$comment':'x'}`, []string{`{'a':1,'b':1}`}, []string{`{'a':1}`}},
		{`{'a':{'$not':{'$gt':1}}}`, []string{`{}`, `{'a':1}`, `{'a':'x'}`}, []string{`{'a':[0,2]}`}},
		{`{'a':{'$exists':true}}`, []string{`{'a':null}`, `{'a':[]}`}, []string{`{}`}},
		{`{'a.b':{'$exists':false}}`, []string{`{'a':[]}`, `{'a':[{}]}`}, []string{`{'a':[{},{'b':1}]}`}},
		{`{'a':{'$type':'number'}}`, []string{`{'a':1}`, `{'a':['x',2.5]}`}, []string{`{'a':'x'}`, `{}`}},
		{`{'a':{'$type':['array',2]}}`, []string{`{'a':[]}`, `{'a':'x'}`}, []string{`{'a':1}`}},
		{`{'a':{'$mod':[4,1]}}`, []string{`{'a':5}`, `{'a':5.9}`, `{'a':[2,9]}`}, []string{`{'a':4}`, `{'a':'5'}`, `{}`}},
		{`{'a':{'$regex':'^ab$','$options':'i'}}`, []string{`{'a':'AB'}`, `{'a':'ab\n'}`, `{'a':['x','ab']}`}, []string{`{'a':'abc'}`, `{'a':1}`}},
		{`{'a':{'$regex':'a b # c','$options':'x'}}`, []string{`{'a':'ab'}`}, []string{`{'a':'a b'}`}},
		{`{'a':{'$size':2}}`, []string{`{'a':[1,2]}`, `{'a':[[],1]}`}, []string{`{'a':[[1,2]]}`, `{'a':1}`}},
		{`{'a':{'$all':[1,2]}}`, []string{`{'a':[2,3,1]}`}, []string{`{'a':[1]}`}},
		{`{'a':{'$all':[1]}}`, []string{`{'a':1}`}, nil},
		{`{'a':{'$all':[]}}`, nil, []string{`{'a':[]}`}},
		{`{'a':{'$all':[{'$elemMatch':{'b':1,'c':1}},{'$elemMatch':{'b':2}}]}}`, []string{`{'a':[{'b':2},{'b':1,'c':1}]}`}, []string{`{'a':[{'b':1,'c':1}]}`}},
		{`{'a':{'$elemMatch':{'$gt':1,'$lt':5}}}`, []string{`{'a':[9,3]}`}, []string{`{'a':[0,9]}`, `{'a':3}`, `{'a':[[3]]}`}},
		{`{'a':{'$elemMatch':{'b':1,'c':{'$ne':2}}}}`, []string{`{'a':[{'b':1}]}`}, []string{`{'a':[{'b':1,'c':2},{'b':2}]}`, `{'a':{'b':1}}`}},
		{`{'a':{'$elemMatch':{'$elemMatch':{'$eq':1}}}}`, []string{`{'a':[[1]]}`}, []string{`{'a':[1]}`}},
		{`{'a':{'$bitsAllSet':[0,2]}}`, []string{`{'a':5}`, `{'a':7.0}`, `{'a':-1}`}, []string{`{'a':4}`, `{'a':5.5}`}},
		{`{'a':{'$bitsAllClear':5}}`, []string{`{'a':2}`}, []string{`{'a':1}`}},
		{`{'a':{'$bitsAnySet':5}}`, []string{`{'a':4}`}, []string{`{'a':2}`}},
		{`{'a':{'$bitsAnyClear':{'$binary':{'base64':'BQ==','subType':'00'}}}}`, []string{`{'a':4}`}, []string{`{'a':5}`}},
		{`{'$expr':{'$gt':['$a','$b']}}`, []string{`{'a':2,'b':1}`}, []string{`{'a':1,'b':1}`}},
		{`{'a':{'$id':1,'$ref':'x'}}`, []string{`{'a':{'$id':1,'$ref':'x'}}`}, nil},
	} {
		f, err := CompileFilter(doc(t, c.filter))
		if err != nil {
			t.Errorf("%s: %v", c.filter, err)
			continue
		}
		for i, d := range slices.Concat(c.meets, c.misses) {
			if got, _, err := f.Match(doc(t, d)); err != nil || got != (i < len(c.meets)) {
				t.Errorf("%s on %s: %v, %v", c.filter, d, got, err)
			}
		}
	}
}

func TestFiltersRefused(t *testing.T) {
	for filter, code := range map[string]int32{
		`{'$where':'1'}`: 2, `{'$nope':1}`: 2, `{'a':{'$nope':1}}`: 2, `{'a':{'$near':[1,2]}}`: 2, `{'a':{'$gt':1,'b':2}}`: 2,
		`{'$or':[]}`: 2, `{'$or':[1]}`: 2, `{'$and':{}}`: 2, `{'a':{'$in':1}}`: 2, `{'a':{'$in':[{'$gt':1}]}}`: 2, `{'a':{'$not':{}}}`: 2, `{'a':{'$not':1}}`: 2,
		`{'a':{'$type':'nope'}}`: 2, `{'a':{'$type':99}}`: 2, `{'a':{'$mod':[0,1]}}`: 2, `{'a':{'$mod':[1]}}`: 2, `{'a':{'$mod':[1,2,3]}}`: 2,
		`{'a':{'$regex':'('}}`: 51091, `{'a':{'$regex':'(?=x)'}}`: 51091, `{'a':{'$regex':'x','$options':'q'}}`: 51108, `{'a':{'$options':'i'}}`: 2,
		`{'a':{'$size':-1}}`: 9, `{'a':{'$size':1.5}}`: 9, `{'a':{'$all':1}}`: 2, `{'a':{'$all':[{'$gt':1}]}}`: 2, `{'a':{'$elemMatch':1}}`: 2,
		`{'a':{'$bitsAllSet':-1}}`: 2, `{'a':{'$bitsAllSet':[-1]}}`: 2, `{'a':{'$bitsAllSet':'x'}}`: 2, `{'a':{'$gt':{'$undefined':true}}}`: 2,
		`{'a':{'$lt':{'$regularExpression':{'pattern':'x','options':''}}}}`: 2, `{'$expr':{'$nope':1}}`: 168,
	} {
		_, err := CompileFilter(doc(t, filter))
		t.Run(filter, func(t *testing.T) { wantCode(t, err, code) })
	}
}

func TestFilterExpressionErrorsAreNotMatches(t *testing.T) {
	f, err := CompileFilter(doc(t, `{'$nor':[{'$expr':{'$divide':[1,'$a']}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	matched, _, err := f.Match(doc(t, `{'a':0}`))
	if wantCode(t, err, 2); matched {
		t.Fatal("an error matched")
	}
}

func TestFilterPositions(t *testing.T) {
	for _, c := range []struct {
		filter, doc string
		index       int
	}{
		{`{'a':2}`, `{'a':[1,2]}`, 1},
		{`{'a':[1,2]}`, `{'a':[1,2]}`, -1},
		{`{'a.b':[1,2]}`, `{'a':[{},{'b':[1,2]}]}`, 1},
		{`{'a.b':2}`, `{'a':[{'b':[7]},{'b':[1,2]}]}`, 1},
		{`{'a':2,'b':5}`, `{'a':[1,2],'b':[5]}`, 0},
		{`{'$or':[{'a':9},{'b':6}]}`, `{'a':[1],'b':[5,6]}`, 1},
		{`{'a':{'$elemMatch':{'$gt':1}}}`, `{'a':[1,2]}`, 1},
		{`{'a':{'$not':{'$lt':0}}}`, `{'a':[1]}`, -1},
		{`{'a':1}`, `{'a':1}`, -1},
	} {
		f, err := CompileFilter(doc(t, c.filter))
		if err != nil {
			t.Fatal(err)
		}
		matched, at, err := f.Match(doc(t, c.doc))
		i, found := at.Index()
		if !matched || err != nil || found != (c.index >= 0) || found && i != c.index {
			t.Errorf("%s on %s: %v at %d %v, %v", c.filter, c.doc, matched, i, found, err)
		}
	}
}

func TestProjections(t *testing.T) {
	for _, c := range []struct {
		spec, before, after string
		at                  Positions
	}{
		{spec: `{}`, before: `{'_id':1,'a':1}`, after: `{'_id':1,'a':1}`},
		{spec: `{'b':1,'a':1}`, before: `{'_id':1,'a':1,'b':2,'c':3}`, after: `{'_id':1,'a':1,'b':2}`},
		{spec: `{'_id':0,'a.b':1}`, before: `{'_id':1,'a':[{'b':1,'c':1},2,{'c':1}],'d':1}`, after: `{'a':[{'b':1},{}]}`},
		{spec: `{'a.b':1}`, before: `{'_id':1,'a':5}`, after: `{'_id':1}`},
		{spec: `{'a.b':0,'c':false}`, before: `{'_id':1,'a':{'b':1,'d':1},'c':1}`, after: `{'_id':1,'a':{'d':1}}`},
		{spec: `{'_id':0}`, before: `{'_id':1,'a':1}`, after: `{'a':1}`},
		{spec: `{'_id':1}`, before: `{'_id':1,'a':1}`, after: `{'_id':1}`},
		{spec: `{'_id':1,'a':0}`, before: `{'_id':1,'a':1,'b':1}`, after: `{'_id':1,'b':1}`},
		{spec: `{'a':{'b':1}}`, before: `{'_id':1,'a':{'b':1,'c':1}}`, after: `{'_id':1,'a':{'b':1}}`},
		{spec: `{'a':{'$slice':-2}}`, before: `{'_id':1,'a':[1,2,3],'b':1}`, after: `{'_id':1,'a':[2,3],'b':1}`},
		{spec: `{'a':{'$slice':[1,1]},'_id':0,'c':1}`, before: `{'_id':1,'a':[1,2,3],'b':1,'c':2}`, after: `{'a':[2],'c':2}`},
		{spec: `{'a':{'$elemMatch':{'x':2}},'b':1}`, before: `{'_id':1,'a':[{'x':1},{'x':2}],'b':1}`, after: `{'_id':1,'b':1,'a':[{'x':2}]}`},
		{spec: `{'a.$':1}`, before: `{'_id':1,'a':[1,2,3],'b':1}`, after: `{'_id':1,'a':[2]}`, at: At(1)},
		{spec: `{'n':{'$add':['$a',1]},'x.y':'$a'}`, before: `{'_id':1,'a':1}`, after: `{'_id':1,'n':2,'x':{'y':1}}`},
	} {
		p, err := CompileProjection(doc(t, c.spec))
		if err != nil {
			t.Errorf("%s: %v", c.spec, err)
			continue
		}
		if got, err := p.Apply(doc(t, c.before), c.at); err != nil || !bsonval.Identical(got, doc(t, c.after)) {
			t.Errorf("%s of %s: %v, %v", c.spec, c.before, got, err)
		}
	}
	for spec, code := range map[string]int32{`{'a':1,'b':0}`: 31254, `{'a':0,'b':1}`: 31253, `{'a':1,'a.b':1}`: 31250, `{'a.b':1,'a':1}`: 31250,
		`{'a':{'$slice':'x'}}`: 28667, `{'a.b':{'$elemMatch':{}}}`: 31275, `{'a':{}}`: 51270, `{'a':{'$meta':'x'}}`: 2, `{'$a':1}`: 16410} {
		_, err := CompileProjection(doc(t, spec))
		t.Run(spec, func(t *testing.T) { wantCode(t, err, code) })
	}
}

func TestSorts(t *testing.T) {
	for _, c := range []struct{ spec, docs, want string }{
		{`{'a':1}`, `[{'a':2},{},{'a':[]},{'a':'x'},{'a':[9,1]},{'a':null}]`, `[{'a':[]},{},{'a':null},{'a':[9,1]},{'a':2},{'a':'x'}]`},
		{`{'a':-1}`, `[{'a':2},{'a':[9,1]},{'a':5}]`, `[{'a':[9,1]},{'a':5},{'a':2}]`},
		{`{'a':1,'b.c':-1}`, `[{'a':1,'b':{'c':1}},{'a':1,'b':[{'c':0},{'c':5}]},{'a':0}]`, `[{'a':0},{'a':1,'b':[{'c':0},{'c':5}]},{'a':1,'b':{'c':1}}]`},
	} {
		s, err := CompileSort(doc(t, c.spec))
		if err != nil {
			t.Fatal(err)
		}
		got := value(t, c.docs).(bson.A)
		slices.SortStableFunc(got, func(a, b any) int { return s.Compare(a.(bson.D), b.(bson.D)) })
		if !bsonval.Identical(got, value(t, c.want)) {
			t.Errorf("%s: %v", c.spec, got)
		}
	}
	for _, spec := range []string{`{'a':2}`, `{'a':'x'}`, `{'$a':1}`} {
		if _, err := CompileSort(doc(t, spec)); err == nil {
			t.Errorf("%s passes", spec)
		}
	}
}
