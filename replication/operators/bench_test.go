package operators

import (
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// comment is a document as the comments example stores it.
func comment(t testing.TB) bson.D {
	return doc(t, `{'_id':{'$oid':'65f000000000000000000001'},'thread':'t-1','author':'someone','text':'a text of some length, as people write it','votes':12,'score':3.5,
		'flags':{'hidden':false,'pinned':true},'tags':['a','b','c'],'replies':[{'id':1,'text':'x','votes':1},{'id':2,'text':'y','votes':2}],'at':{'$date':{'$numberLong':'1700000000000'}}}`)
}

func BenchmarkApply(b *testing.B) {
	for _, c := range []struct{ name, update, arrayFilters string }{
		{"set", `{'$set':{'text':'new'}}`, ``},
		{"set3", `{'$set':{'text':'new','score':2.5,'flags.hidden':true}}`, ``},
		{"inc", `{'$inc':{'votes':1}}`, ``},
		{"push-slice", `{'$push':{'tags':{'$each':['d'],'$slice':-3}}}`, ``},
		{"add-to-set", `{'$addToSet':{'tags':'b'}}`, ``},
		{"pull", `{'$pull':{'replies':{'id':2}}}`, ``},
		{"array-filter", `{'$inc':{'replies.$[r].votes':1}}`, `{'r.id':2}`},
		{"replace", `{'thread':'t-1','author':'someone','text':'another','votes':13}`, ``},
		{"pipeline", `[{'$set':{'score':{'$add':['$score',1]}}}]`, ``},
	} {
		var filters []bson.D
		if c.arrayFilters != "" {
			filters = append(filters, doc(b, c.arrayFilters))
		}
		u, err := CompileUpdate(value(b, c.update), filters)
		if err != nil {
			b.Fatal(err)
		}
		d := comment(b)
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := u.Apply(d, ApplyInput{Now: now}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCompileUpdate(b *testing.B) {
	u := value(b, `{'$set':{'text':'new','flags.hidden':true},'$inc':{'votes':1}}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := CompileUpdate(u, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	f, err := CompileFilter(doc(b, `{'thread':'t-1','votes':{'$gt':3},'replies.id':2}`))
	if err != nil {
		b.Fatal(err)
	}
	d := comment(b)
	b.ReportAllocs()
	for b.Loop() {
		if ok, _, err := f.Match(d); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}
