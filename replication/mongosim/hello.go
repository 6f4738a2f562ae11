package mongosim

import (
	"context"
	"strconv"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/wire"
)

// aboutCommand are the commands that speak of the server itself.
func (b *Backend) aboutCommand(name string) (c command, ok bool) {
	var do func(context.Context, *request) (bson.D, error)
	switch name {
	case "hello", "isMaster", "ismaster":
		do = hello
	case "ping", "logout":
		do = func(context.Context, *request) (bson.D, error) { return nil, nil }
	case "buildInfo", "buildinfo":
		do = buildInfo
	case "getParameter":
		do = getParameter
	case "serverStatus":
		do = serverStatus
	case "connectionStatus":
		do = connectionStatus
	case "hostInfo":
		do = hostInfo
	case "getCmdLineOpts":
		do = func(context.Context, *request) (bson.D, error) {
			return bson.D{{Key: "argv", Value: bson.A{"mongosim"}}, {Key: "parsed", Value: bson.D{}}}, nil
		}
	case "whatsmyuri":
		do = func(context.Context, *request) (bson.D, error) {
			return bson.D{{Key: "you", Value: "127.0.0.1:0"}}, nil
		}
	case "endSessions", "killSessions":
		return command{endSessions, nil, about}, true
	case "startSession":
		do = func(_ context.Context, r *request) (bson.D, error) {
			return bson.D{{Key: "id", Value: bson.D{{Key: "id", Value: bson.Binary{Subtype: 4, Data: r.b.randomBytes(16)}}}},
				{Key: "timeoutMinutes", Value: int32(30)}}, nil
		}
	default:
		return command{}, false
	}
	return command{do, nil, about}, true
}

func (b *Backend) version() string {
	if b.options.WireVersion >= WireVersion80 {
		return "8.0.4"
	}
	return "7.0.14"
}

func hello(_ context.Context, r *request) (bson.D, error) {
	b := r.b
	secondary := b.isSecondary()
	primary := "isWritablePrimary"
	if r.name != "hello" {
		primary = "ismaster"
	}
	d := bson.D{{Key: "helloOk", Value: true}, {Key: primary, Value: !secondary}}
	if set := b.options.ReplicaSet; set != "" {
		b.mu.Lock()
		me := b.address
		b.mu.Unlock()
		d = append(d, bson.E{Key: "secondary", Value: secondary}, bson.E{Key: "setName", Value: set},
			bson.E{Key: "setVersion", Value: int32(1)}, bson.E{Key: "hosts", Value: bson.A{me}}, bson.E{Key: "me", Value: me},
			bson.E{Key: "electionId", Value: electionID(b.term.Load())})
		if !secondary {
			d = append(d, bson.E{Key: "primary", Value: me})
		}
		now := optime(b.store.Marks().Applied)
		d = append(d, bson.E{Key: "lastWrite", Value: bson.D{{Key: "opTime", Value: bson.D{{Key: "ts", Value: now},
			{Key: "t", Value: b.term.Load()}}}, {Key: "lastWriteDate", Value: bson.NewDateTimeFromTime(b.options.Now())}}})
	}
	d = append(d, bson.E{Key: "maxBsonObjectSize", Value: int32(wire.MaxDocumentBytes)},
		bson.E{Key: "maxMessageSizeBytes", Value: int32(wire.MaxMessageBytes)},
		bson.E{Key: "maxWriteBatchSize", Value: int32(wire.MaxWriteBatchSize)},
		bson.E{Key: "localTime", Value: bson.NewDateTimeFromTime(b.options.Now())},
		bson.E{Key: "logicalSessionTimeoutMinutes", Value: int32(30)}, bson.E{Key: "connectionId", Value: int32(1)},
		bson.E{Key: "minWireVersion", Value: int32(0)}, bson.E{Key: "maxWireVersion", Value: b.options.WireVersion},
		bson.E{Key: "readOnly", Value: false})
	return append(d, offered(r)...), nil
}

// offered are the compressors that both sides know, in the client's order.
func offered(r *request) bson.D {
	list, _ := r.args().array("compression")
	var both bson.A
	for _, v := range list {
		name, _ := v.(string)
		if _, known := wire.CompressorNamed(name); known {
			both = append(both, name)
		}
	}
	if both == nil {
		return nil
	}
	return bson.D{{Key: "compression", Value: both}}
}

// electionID grows with every term, as drivers expect when they choose between two that call themselves primary.
func electionID(term int64) (id bson.ObjectID) {
	copy(id[:], []byte{0x7f, 0xff, 0xff, 0xff})
	for i := range 8 {
		id[11-i] = byte(term >> (8 * i))
	}
	return id
}

func buildInfo(_ context.Context, r *request) (bson.D, error) {
	version := r.b.version()
	var parts bson.A
	for _, n := range splitVersion(version) {
		parts = append(parts, n)
	}
	return bson.D{{Key: "version", Value: version}, {Key: "gitVersion", Value: "mongosim"}, {Key: "modules", Value: bson.A{}},
		{Key: "versionArray", Value: append(parts, int32(0))}, {Key: "bits", Value: int32(64)}, {Key: "debug", Value: false},
		{Key: "maxBsonObjectSize", Value: int32(wire.MaxDocumentBytes)}, {Key: "storageEngines", Value: bson.A{"mongosim"}}}, nil
}

func splitVersion(v string) (parts []int32) {
	var n int32
	for _, c := range v + "." {
		if c == '.' {
			parts, n = append(parts, n), 0
			continue
		}
		n = n*10 + int32(c-'0')
	}
	return parts
}

func getParameter(_ context.Context, r *request) (bson.D, error) {
	fcv := bson.D{{Key: "version", Value: r.b.version()[:3]}}
	all := r.body[0].Value == "*"
	var found bson.D
	for _, p := range (bson.D{{Key: "featureCompatibilityVersion", Value: fcv}, {Key: "authenticationMechanisms", Value: bson.A{}},
		{Key: "localLogicalSessionTimeoutMinutes", Value: int32(30)}, {Key: "quiet", Value: false}}) {
		if _, asked := r.lookup(p.Key); asked || all {
			found = append(found, p)
		}
	}
	if found == nil {
		return nil, failure(codeInvalidOptions, "no option found to get")
	}
	return found, nil
}

func serverStatus(_ context.Context, r *request) (bson.D, error) {
	b, m := r.b, r.b.store.Marks()
	b.mu.Lock()
	me := b.address
	b.mu.Unlock()
	return bson.D{{Key: "host", Value: me}, {Key: "version", Value: b.version()}, {Key: "process", Value: "mongosim"},
		{Key: "localTime", Value: bson.NewDateTimeFromTime(b.options.Now())},
		{Key: "connections", Value: bson.D{{Key: "current", Value: int32(b.conns.count())}}},
		{Key: "opcounters", Value: bson.D{{Key: "command", Value: b.count.Load()}}},
		{Key: "storageEngine", Value: bson.D{{Key: "name", Value: "mongosim"}, {Key: "persistent", Value: false}}},
		{Key: "logicalSessionRecordCache", Value: bson.D{{Key: "activeSessionsCount", Value: int32(b.store.Sessions())}}},
		{Key: "mongosim", Value: bson.D{{Key: "applied", Value: m.Applied}, {Key: "journalled", Value: m.Journalled},
			{Key: "majority", Value: m.Majority}, {Key: "term", Value: b.term.Load()}}}}, nil
}

func connectionStatus(_ context.Context, _ *request) (bson.D, error) {
	return bson.D{{Key: "authInfo", Value: bson.D{{Key: "authenticatedUsers", Value: bson.A{}},
		{Key: "authenticatedUserRoles", Value: bson.A{}}}}}, nil
}

func hostInfo(_ context.Context, r *request) (bson.D, error) {
	return bson.D{{Key: "system", Value: bson.D{{Key: "currentTime", Value: bson.NewDateTimeFromTime(r.b.options.Now())},
		{Key: "hostname", Value: "mongosim"}, {Key: "cpuAddrSize", Value: int32(strconv.IntSize)}}},
		{Key: "os", Value: bson.D{{Key: "type", Value: "memory"}}}}, nil
}

func endSessions(_ context.Context, r *request) (bson.D, error) {
	list, _ := r.body[0].Value.(bson.A)
	for _, v := range list {
		if lsid, is := v.(bson.D); is {
			r.b.store.EndSession(sessionKey(lsid))
		}
	}
	return nil, nil
}
