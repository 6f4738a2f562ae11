package expression

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

func value(t testing.TB, json string) any {
	t.Helper()
	var d bson.D
	if err := bson.UnmarshalExtJSON([]byte(strings.ReplaceAll(`{'v':`+json+`}`, "'", `"`)), false, &d); err != nil {
		t.Fatalf("%s: %v", json, err)
	}
	return d[0].Value
}

const sample = `{'n':2,'f':2.5,'s':'aB','z':null,'t':[1,2,3],'o':{'p':{'q':7}},'u':[{'x':1},{'x':[2]},{},5],'d':{'$date':{'$numberLong':'1000'}},
	'l':{'$numberLong':'9223372036854775807'},'dec':{'$numberDecimal':'1.5'},'id':{'$oid':'65f000000000000000000001'}}`

func evaluate(t *testing.T, expr string) (any, error) {
	t.Helper()
	e, err := Compile(value(t, expr))
	if err != nil {
		return nil, err
	}
	return e.Eval(Scope{Root: value(t, sample).(bson.D), Now: time.UnixMilli(5000), Let: bson.D{{Key: "given", Value: int32(9)}}})
}

func TestExpressions(t *testing.T) {
	for expr, want := range map[string]string{
		`'$n'`: `2`, `'$o.p.q'`: `7`, `'$u.x'`: `[1,[2]]`, `'$t.0'`: `[]`, `'$$ROOT.n'`: `2`, `'$$CURRENT.o.p'`: `{'q':7}`, `'$$given'`: `9`,
		`'$$NOW'`: `{'$date':{'$numberLong':'5000'}}`, `'text'`: `'text'`, `{'a':'$n','b':'$nope'}`: `{'a':2}`, `['$n','$nope']`: `[2,null]`, `{'$literal':'$n'}`: `'$n'`,
		`{'$add':['$n',1,'$f']}`: `5.5`, `{'$add':['$d',1]}`: `{'$date':{'$numberLong':'1001'}}`, `{'$add':['$n','$z']}`: `null`, `{'$add':['$l',1]}`: `9223372036854775808.0`,
		`{'$add':['$dec',1]}`: `{'$numberDecimal':'2.5'}`, `{'$subtract':['$d',{'$date':{'$numberLong':'400'}}]}`: `{'$numberLong':'600'}`, `{'$subtract':['$n',5]}`: `-3`,
		`{'$multiply':['$n','$f']}`: `5.0`, `{'$divide':[1,'$n']}`: `0.5`, `{'$mod':[-7,3]}`: `-1`, `{'$abs':-4}`: `4`, `{'$ceil':'$f'}`: `3.0`, `{'$floor':'$f'}`: `2.0`, `{'$round':'$f'}`: `2.0`, `{'$trunc':-2.5}`: `-2.0`,
		`{'$min':['$n',1,'$z']}`: `1`, `{'$max':'$t'}`: `3`, `{'$sum':['$t','x']}`: `0`, `{'$sum':'$t'}`: `6`, `{'$avg':'$t'}`: `2.0`,
		`{'$concat':['$s','x']}`: `'aBx'`, `{'$concat':['$s','$z']}`: `null`, `{'$toLower':'$s'}`: `'ab'`, `{'$toUpper':'$z'}`: `''`, `{'$strLenCP':'äx'}`: `2`, `{'$strLenBytes':'äx'}`: `3`,
		`{'$substrCP':['äxyz',1,2]}`: `'xy'`, `{'$split':['a,b',',']}`: `['a','b']`,
		`{'$cond':['$z',1,2]}`: `2`, `{'$cond':{'if':{'$gt':['$n',1]},'then':'yes','else':{'$divide':[1,0]}}}`: `'yes'`, `{'$ifNull':['$z','$nope',3]}`: `3`,
		`{'$switch':{'branches':[{'case':{'$eq':['$n',1]},'then':'a'},{'case':true,'then':'b'}],'default':'c'}}`: `'b'`,
		`{'$eq':['$n',2.0]}`: `true`, `{'$ne':['$n','$f']}`: `true`, `{'$lt':['$nope','$z']}`: `true`, `{'$cmp':['$n','x']}`: `-1`,
		`{'$and':[1,'$n',{'$not':['$z']}]}`: `true`, `{'$or':['$z',0]}`: `false`, `{'$and':[]}`: `true`, `{'$in':[2.0,'$t']}`: `true`, `{'$size':'$t'}`: `3`,
		`{'$arrayElemAt':['$t',-1]}`: `3`, `{'$first':'$t'}`: `1`, `{'$last':'$t'}`: `3`, `{'$concatArrays':['$t',[4]]}`: `[1,2,3,4]`, `{'$slice':['$t',-2]}`: `[2,3]`, `{'$slice':['$t',1,1]}`: `[2]`,
		`{'$reverseArray':'$t'}`: `[3,2,1]`, `{'$isArray':['$t']}`: `true`, `{'$indexOfArray':['$t',3]}`: `2`, `{'$range':[0,5,2]}`: `[0,2,4]`,
		`{'$filter':{'input':'$t','cond':{'$gt':['$$this',1]}}}`: `[2,3]`, `{'$filter':{'input':'$t','as':'e','cond':true,'limit':1}}`: `[1]`, `{'$map':{'input':'$t','as':'e','in':{'$multiply':['$$e','$n']}}}`: `[2,4,6]`,
		`{'$reduce':{'input':'$t','initialValue':10,'in':{'$subtract':['$$value','$$this']}}}`: `4`, `{'$let':{'vars':{'a':1,'b':'$n'},'in':{'$add':['$$a','$$b']}}}`: `3`,
		`{'$setUnion':['$t',[3,4]]}`: `[1,2,3,4]`, `{'$setIntersection':['$t',[3,1]]}`: `[1,3]`, `{'$setDifference':['$t',[1]]}`: `[2,3]`, `{'$setEquals':['$t',[3,2,1,1]]}`: `true`, `{'$setIsSubset':[[1],'$t']}`: `true`,
		`{'$anyElementTrue':[[0,1]]}`: `true`, `{'$allElementsTrue':[[0,1]]}`: `false`,
		`{'$mergeObjects':['$o',{'p':1,'r':2},'$z']}`: `{'p':1,'r':2}`, `{'$objectToArray':'$o'}`: `[{'k':'p','v':{'q':7}}]`, `{'$arrayToObject':[[['a',1],['b',2]]]}`: `{'a':1,'b':2}`, `{'$getField':'n'}`: `2`, `{'$getField':{'field':'p','input':'$o'}}`: `{'q':7}`,
		`{'$type':'$nope'}`: `'missing'`, `{'$isNumber':'$dec'}`: `true`, `{'$toString':'$f'}`: `'2.5'`, `{'$toString':'$id'}`: `'65f000000000000000000001'`, `{'$toString':'$d'}`: `'1970-01-01T00:00:01.000Z'`,
		`{'$toInt':'7'}`: `7`, `{'$toLong':2.9}`: `{'$numberLong':'2'}`, `{'$toDouble':true}`: `1.0`, `{'$toDecimal':2.5}`: `{'$numberDecimal':'2.50000000000000'}`, `{'$toBool':'false'}`: `true`, `{'$toDate':{'$numberLong':'5'}}`: `{'$date':{'$numberLong':'5'}}`, `{'$toInt':'$z'}`: `null`,
		`{'$toObjectId':'65f000000000000000000001'}`: `{'$oid':'65f000000000000000000001'}`,
	} {
		if got, err := evaluate(t, expr); err != nil || !bsonval.Identical(got, value(t, want)) {
			t.Errorf("%s: %T %v, %v; want %s", expr, got, got, err, want)
		}
	}
	for _, expr := range []string{`'$nope'`, `'$$REMOVE'`, `{'$arrayElemAt':['$t',9]}`, `'$n.x'`} {
		if got, err := evaluate(t, expr); err != nil || !isMissing(got) {
			t.Errorf("%s: %v, %v; want nothing", expr, got, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	for expr, code := range map[string]int32{
		`{'$nope':1}`: 168, `{'$add':1,'$sub':2}`: 15983, `'$'`: 15998, `'$a..b'`: 15998, `'$a.$b'`: 16410, `'$$nope'`: 17276, `{'$subtract':[1]}`: 16020,
		`{'$add':['x']}`: 14, `{'$add':['$d','$d']}`: 16612, `{'$divide':[1,0]}`: 2, `{'$multiply':['x',1]}`: 14, `{'$concat':[1]}`: 16702, `{'$size':'$n'}`: 17124, `{'$size':'$nope'}`: 17124,
		`{'$in':[1,'$n']}`: 40081, `{'$cond':[1,2]}`: 16020, `{'$cond':{'if':1,'then':1}}`: 9, `{'$ifNull':[1]}`: 1257300, `{'$switch':{'branches':[{'case':false,'then':1}]}}`: 40066,
		`{'$filter':{'input':'$n','cond':true}}`: 28651, `{'$map':{'input':'$n','in':1}}`: 16883, `{'$map':{'input':[],'as':'A','in':1}}`: 16868, `{'$reduce':{'input':1,'initialValue':1,'in':1}}`: 40080,
		`{'$toInt':'x'}`: 241, `{'$toInt':'$l'}`: 241, `{'$toDate':5}`: 241, `{'$range':[0,2147483647]}`: 2, `{'$range':[0,1,0]}`: 34449, `{'$mergeObjects':[1]}`: 40400, `{'$abs':'x'}`: 28765, `{'$setUnion':[1]}`: 17041,
	} {
		_, err := evaluate(t, expr)
		var e *bsonval.Error
		if !errors.As(err, &e) || e.Code != code {
			t.Errorf("%s: got %v, want code %d", expr, err, code)
		}
	}
}

// TestReduceCannotOutgrowADocument: doubling an array in every step ends in an error, not in the machine's memory.
func TestReduceCannotOutgrowADocument(t *testing.T) {
	_, err := evaluate(t, `{'$reduce':{'input':{'$range':[0,64]},'initialValue':[1],'in':{'$concatArrays':['$$value','$$value']}}}`)
	if err == nil {
		t.Fatal("2^64 elements pass")
	}
}
