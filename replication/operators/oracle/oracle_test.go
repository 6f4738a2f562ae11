package oracle

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
	"popfleet/replication/operators"
)

var (
	seed  = flag.Uint64("seed", 1, "of the random cases")
	cases = flag.Int("cases", 10_000, "how many; 120000 is the bar, a minute of two processes")
)

// pipeBuffer is large, so that the two processes wake each other seldom.
const pipeBuffer = 1 << 20

// kase is one question, put to both.
type kase struct {
	kind         string // match, update, project
	doc, filter  bson.D
	update       any
	arrayFilters []bson.D
}

// answer is a result in a form that can be compared: a canonical text, or an error.
type answer struct {
	text, refused string
	doc           bson.D // behind the text
}

func (a answer) same(b answer) bool { return a.text == b.text && a.refused == b.refused }

func document(d bson.D) answer { return answer{text: canonical(d), doc: d} }

func (g generator) next() kase {
	k := kase{kind: "match", doc: g.document(), filter: one("_id", int32(1))}
	switch n := g.IntN(20); {
	case n < 8:
		k.filter = g.filter(2)
	case n < 16:
		k.kind = "update"
		filter, update, arrayFilters := g.update()
		k.filter, k.update, k.arrayFilters = filter, update, arrayFilters
	case n < 18:
		k.kind, k.update = "update", g.pipeline()
	default:
		k.kind, k.update = "project", g.projection()
	}
	return k
}

func (k kase) ours() answer {
	f, err := operators.CompileFilter(k.filter)
	if err != nil {
		return answer{refused: err.Error()}
	}
	matched, at, err := f.Match(k.doc)
	switch {
	case err != nil:
		return answer{refused: err.Error()}
	case k.kind == "match":
		return answer{text: strconv.FormatBool(matched)}
	case !matched:
		return document(k.doc)
	case k.kind == "project":
		return k.projected(at)
	}
	return k.updated(at)
}

func (k kase) projected(at operators.Positions) answer {
	p, err := operators.CompileProjection(k.update.(bson.D))
	if err != nil {
		return answer{refused: err.Error()}
	}
	d, err := p.Apply(k.doc, at)
	if err != nil {
		return answer{refused: err.Error()}
	}
	return document(d)
}

// updated also holds that the effects make the same document.
func (k kase) updated(at operators.Positions) answer {
	u, err := operators.CompileUpdate(k.update, k.arrayFilters)
	if err != nil {
		return answer{refused: err.Error()}
	}
	after, effects, err := u.Apply(k.doc, operators.ApplyInput{Now: time.UnixMilli(0), Positions: at})
	if err != nil {
		return answer{refused: err.Error()}
	}
	replayed, err := operators.ApplyEffects(k.doc, effects)
	if err != nil || canonical(replayed) != canonical(after) {
		return answer{refused: fmt.Sprintf("EFFECTS make %s, not %s (%v)", canonical(replayed), canonical(after), err)}
	}
	return document(after)
}

// canonical is a value as text: fields sorted, as mingo does not keep their order; numbers by value, as JavaScript has
// one type of them.
func canonical(v any) string {
	switch x := v.(type) {
	case bson.D:
		fields := make([]string, len(x))
		for i, e := range x {
			fields[i] = strconv.Quote(e.Key) + ":" + canonical(e.Value)
		}
		slices.Sort(fields)
		return "{" + strings.Join(fields, ",") + "}"
	case bson.A:
		elements := make([]string, len(x))
		for i, e := range x {
			elements[i] = canonical(e)
		}
		return "[" + strings.Join(elements, ",") + "]"
	case string:
		return strconv.Quote(x)
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(x)
	case bson.DateTime:
		return fmt.Sprintf("{\"$date\":%d}", int64(x))
	}
	return strconv.FormatFloat(bsonval.ToFloat(v)+0, 'g', -1, 64) // +0: there is no -0 in JSON
}

// theirs is mingo's answer, in the same form.
func theirs(line []byte) (answer, error) {
	var reply struct {
		R any     `json:"r"`
		E *string `json:"e"`
	}
	if err := json.Unmarshal(line, &reply); err != nil {
		return answer{}, err
	}
	if reply.E != nil {
		return answer{refused: *reply.E}, nil
	}
	if d, ok := value(reply.R).(bson.D); ok {
		return document(d), nil
	}
	return answer{text: canonical(reply.R)}, nil
}

func value(v any) any {
	switch x := v.(type) {
	case map[string]any:
		if ms, ok := x["$date"].(float64); ok {
			return bson.DateTime(ms)
		}
		d := bson.D{}
		for k, e := range x {
			d = append(d, bson.E{Key: k, Value: value(e)})
		}
		return d
	case []any:
		a := make(bson.A, len(x))
		for i, e := range x {
			a[i] = value(e)
		}
		return a
	}
	return v
}

// question is the case as JSON for mingo.
func (k kase) question() string {
	out := fmt.Sprintf(`{"kind":%q,"doc":%s,"filter":%s,"update":%s`, k.kind, ordered(k.doc), ordered(k.filter), ordered(k.update))
	if k.arrayFilters != nil {
		all := bson.A{}
		for _, f := range k.arrayFilters {
			all = append(all, f)
		}
		out += `,"arrayFilters":` + ordered(all)
	}
	return out + "}"
}

// ordered is JSON with the fields in their order.
func ordered(v any) string {
	switch x := v.(type) {
	case bson.D:
		fields := make([]string, len(x))
		for i, e := range x {
			fields[i] = strconv.Quote(e.Key) + ":" + ordered(e.Value)
		}
		return "{" + strings.Join(fields, ",") + "}"
	case bson.A:
		elements := make([]string, len(x))
		for i, e := range x {
			elements[i] = ordered(e)
		}
		return "[" + strings.Join(elements, ",") + "]"
	}
	return canonical(v)
}

func TestAgainstMingo(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("no node on this machine")
	}
	if _, err := os.Stat("node_modules/mingo"); err != nil {
		t.Skip("mingo is not installed: npm ci --prefix replication/operators/oracle")
	}
	cmd := exec.CommandContext(t.Context(), node, "oracle.mjs")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go ask(in)
	compareAll(t, bufio.NewReaderSize(out, pipeBuffer))
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}

// ask writes all questions; compareAll makes the same cases again from the seed. It ends when all are asked or when
// mingo's process is gone.
func ask(in io.WriteCloser) {
	defer in.Close()
	w := bufio.NewWriterSize(in, pipeBuffer)
	g := generator{rand.New(rand.NewPCG(*seed, 0))}
	for range *cases {
		if _, err := fmt.Fprintln(w, g.next().question()); err != nil {
			return
		}
	}
	w.Flush()
}

func compareAll(t *testing.T, out *bufio.Reader) {
	g := generator{rand.New(rand.NewPCG(*seed, 0))}
	counts, equal, unexplained := map[string]int{}, map[string]int{}, 0
	for i := range *cases {
		k := g.next()
		line, err := out.ReadBytes('\n')
		if err != nil {
			t.Fatalf("case %d: mingo ended: %v", i, err)
		}
		want, err := theirs(line)
		if err != nil {
			t.Fatalf("case %d: %v", i, err)
		}
		got := k.ours()
		if got.refused != "" && want.refused != "" {
			equal["refused"]++
			continue
		}
		if got.same(want) {
			equal[k.kind]++
			continue
		}
		if name := explain(k, got, want); name != "" {
			counts[name]++
			continue
		}
		if unexplained++; unexplained <= 30 {
			t.Errorf("case %d of seed %d:\n%s\nours:    %s%s\nmingo's: %s%s", i, *seed, k.question(), got.text, got.refused, want.text, want.refused)
		}
	}
	report(t, counts, equal, unexplained)
}

func report(t *testing.T, counts, equal map[string]int, unexplained int) {
	t.Logf("equal: %v; unexplained: %d", equal, unexplained)
	for _, r := range rules {
		t.Logf("%6d %s: %s", counts[r.name], r.name, r.why)
	}
	if unexplained > 0 {
		t.Errorf("%d unexplained differences", unexplained)
	}
}
