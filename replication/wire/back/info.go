package back

import (
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/wire"
)

// Info is what the backend says of itself.
type Info struct {
	MaxWireVersion int32
	Version        string // of buildInfo
	SetName        string // "" for no replica set
	Mongos         bool
	Sessions       bool // logical sessions are known
	compressors    []string
}

func readInfo(hello bson.Raw) Info {
	var i Info
	i.MaxWireVersion, _ = hello.Lookup("maxWireVersion").Int32OK()
	i.SetName, _ = hello.Lookup("setName").StringValueOK()
	msg, _ := hello.Lookup("msg").StringValueOK()
	i.Mongos = msg == "isdbgrid"
	_, err := hello.LookupErr("logicalSessionTimeoutMinutes")
	i.Sessions = err == nil
	if list, is := hello.Lookup("compression").ArrayOK(); is {
		if values, err := list.Values(); err == nil {
			for _, v := range values {
				name, _ := v.StringValueOK()
				i.compressors = append(i.compressors, name)
			}
		}
	}
	return i
}

// Standalone tells of a single server: it refuses transaction numbers and cluster times.
func (i Info) Standalone() bool { return i.SetName == "" && !i.Mongos }

// choose takes the first of ours that the backend takes.
func (i Info) choose(ours []wire.Compressor) wire.Compressor {
	for _, c := range ours {
		if slices.Contains(i.compressors, c.String()) {
			return c
		}
	}
	return wire.Uncompressed
}

// refused are fields of a command's envelope that such a backend does not take. What they mean is the proxy's to do.
func (i Info) refused() []string {
	var fields []string
	if i.Standalone() {
		fields = []string{"txnNumber", "stmtId", "stmtIds", "autocommit", "startTransaction", "$clusterTime", "$readPreference", "readConcern"}
	}
	if i.Standalone() || !i.Sessions {
		fields = append(fields, "lsid")
	}
	return fields
}
