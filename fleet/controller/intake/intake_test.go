package intake

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
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
