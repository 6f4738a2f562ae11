//go:build e2e

package back

import (
	"os"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// A running fleet-store (FerretDB 1.24) is named by POPFLEET_STORE=host:port. With everything a driver sends to a
// mongos, FerretDB refuses these commands (unknown field "stmtId", "txnNumber"); through the pool it takes them.
func TestFerretDBTakesStrippedCommands(t *testing.T) {
	address := os.Getenv("POPFLEET_STORE")
	if address == "" {
		t.Skip("POPFLEET_STORE names no running fleet-store")
	}
	p := pool(t, address, nil)
	info, err := p.Info(t.Context())
	if err != nil || !info.Standalone() {
		t.Fatalf("%+v, %v", info, err)
	}
	envelope := bson.D{{Key: "lsid", Value: bson.D{{Key: "id", Value: bson.Binary{Subtype: 4, Data: make([]byte, 16)}}}}, {Key: "txnNumber", Value: int64(1)},
		{Key: "stmtId", Value: int32(0)}, {Key: "$clusterTime", Value: bson.D{{Key: "clusterTime", Value: bson.Timestamp{T: 1}}}},
		{Key: "$readPreference", Value: bson.D{{Key: "mode", Value: "nearest"}}},
		{Key: "readConcern", Value: bson.D{{Key: "level", Value: "local"}, {Key: "afterClusterTime", Value: bson.Timestamp{T: 1}}}}}
	inc, one := bson.D{{Key: "$inc", Value: bson.D{{Key: "n", Value: int32(1)}}}}, bson.D{{Key: "_id", Value: int32(1)}}
	for _, d := range []bson.D{
		{{Key: "drop", Value: "wire_back"}},
		{{Key: "insert", Value: "wire_back"}, {Key: "documents", Value: bson.A{one, bson.D{{Key: "_id", Value: int32(2)}}, bson.D{{Key: "_id", Value: int32(3)}}}}},
		{{Key: "update", Value: "wire_back"}, {Key: "updates", Value: bson.A{bson.D{{Key: "q", Value: one}, {Key: "u", Value: inc}}}}},
		{{Key: "findAndModify", Value: "wire_back"}, {Key: "query", Value: one}, {Key: "update", Value: inc}, {Key: "new", Value: true}},
		{{Key: "delete", Value: "wire_back"}, {Key: "deletes", Value: bson.A{bson.D{{Key: "q", Value: one}, {Key: "limit", Value: int32(1)}}}}},
		{{Key: "count", Value: "wire_back"}},
		{{Key: "distinct", Value: "wire_back"}, {Key: "key", Value: "n"}, {Key: "query", Value: bson.D{}}},
		{{Key: "find", Value: "wire_back"}, {Key: "batchSize", Value: int32(1)}},
	} {
		r, err := p.Do(t.Context(), command(t, append(d, envelope...)))
		if err == nil && d[0].Key != "drop" { // there may be nothing to drop
			err = r.Err()
		}
		if err != nil {
			t.Fatalf("%s: %v", d[0].Key, err)
		}
		if id, open := r.Body.Lookup("cursor", "id").AsInt64OK(); open {
			more, err := p.Do(t.Context(), command(t, append(bson.D{{Key: "getMore", Value: id}, {Key: "collection", Value: "wire_back"}}, envelope...)))
			if err != nil || more.Err() != nil {
				t.Errorf("getMore: %v, %v", err, more.Err())
			}
		}
	}
}
