package intake

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"popfleet/agents"
)

const node = "fsn-1"

// FuzzReports: what an agent sends must never panic the controller, nor be taken for another node's.
func FuzzReports(f *testing.F) {
	good, _ := json.Marshal([]agents.Report{{V: 1, Node: node, BootID: "b", Seq: 1, Time: time.Unix(1, 0)}})
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(good)
	z.Close()
	f.Add(packed.Bytes(), true)
	f.Add(good, false)
	f.Add([]byte(`[{"v":1,"node":"fsn-1","boot_id":"b","seq":-1}]`), false)
	f.Fuzz(func(t *testing.T, body []byte, zipped bool) {
		encoding := ""
		if zipped {
			encoding = "gzip"
		}
		reports, err := Read(bytes.NewReader(body), encoding, node)
		for _, r := range reports {
			if err != nil || r.Node != node || r.Seq == 0 || r.BootID == "" {
				t.Errorf("took %+v, %v", r, err)
			}
		}
	})
}

// TestBounds: what no node of ours has is refused, and says what.
func TestBounds(t *testing.T) {
	for name, change := range map[string]func(*agents.Report){
		"mirrors": func(r *agents.Report) { r.Mirrors = make([]agents.Mirror, 101) },
		"members": func(r *agents.Report) { r.Mirrors = []agents.Mirror{{Members: make([]agents.MirrorMember, 101)}} },
		"serials": func(r *agents.Report) { r.Mirrors = []agents.Mirror{{Gone: make([]string, 101)}} },
	} {
		r := agents.Report{V: 1, Node: node, BootID: "b", Seq: 1, Time: time.Unix(1, 0), Mirrors: []agents.Mirror{{Gone: []string{"S"}}}}
		good, err := json.Marshal([]agents.Report{r})
		if err == nil {
			_, err = Read(bytes.NewReader(good), "", node)
		}
		if err != nil {
			t.Fatal(err)
		}
		change(&r)
		bad, _ := json.Marshal([]agents.Report{r})
		if _, err := Read(bytes.NewReader(bad), "", node); err == nil || !strings.Contains(err.Error(), "mirrors") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
