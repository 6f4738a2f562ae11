package front

import (
	"context"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"

	"popfleet/replication/wire"
)

// Handler answers commands. It is called from each connection's own goroutine and may block: that connection waits. An
// error that is a *wire.CommandError is answered as it is, any other as an internal error with its text; the connection
// goes on. ctx ends when the server's drain time is over, not when the client leaves: a write that was begun is
// finished.
type Handler interface {
	Handle(ctx context.Context, r *Request) (Reply, error)
}

// Reply is a command's answer. Release, when set, is called once Body was written and is not needed any more.
type Reply struct {
	Body    bson.Raw
	Release func()
}

// Request is one command. It and what it points to is valid until Handle returns.
type Request struct {
	Client  Client
	Command string // the name as sent: the body's first field
	DB      string
	Body    bson.Raw // as sent, envelope and all
	// Sequences are the kind-1 sections; Merged of wire.Message is there for who wants one document.
	Sequences []wire.Sequence
	NoReply   bool // w:0: handled all the same, the answer is dropped

	Session        Session
	ReadPreference ReadPreference
	ReadConcern    ReadConcern
	ClusterTime    bson.Timestamp // $clusterTime.clusterTime, zero when not given
	MaxTime        time.Duration  // maxTimeMS, 0 when not given
}

// Client is who asks.
type Client struct {
	ID     int64 // of the connection, counted from 1
	Remote string
	User   string // "" when nobody has to log in
}

// Session is the logical session a command belongs to.
type Session struct {
	Given     bool
	ID        [16]byte
	Retryable bool // txnNumber without a transaction: a write that may come again
	TxnNumber int64
	StmtIDs   []int32 // of a retried batch; nil: statements are counted from 0

	InTransaction    bool // autocommit: false
	StartTransaction bool
}

// Mode is where a read may go.
type Mode string

// The modes of the server selection specification. A driver leaves primary out.
const (
	Primary            Mode = "primary"
	PrimaryPreferred   Mode = "primaryPreferred"
	Secondary          Mode = "secondary"
	SecondaryPreferred Mode = "secondaryPreferred"
	Nearest            Mode = "nearest"
)

// ReadPreference is $readPreference; Primary when not given.
type ReadPreference struct {
	Mode         Mode
	Tags         []bson.Raw // tag sets, the first that fits counts
	MaxStaleness time.Duration
}

// ReadConcern is readConcern; AfterClusterTime is zero when not given.
type ReadConcern struct {
	Level            string
	AfterClusterTime bson.Timestamp
}

func badValue(text string) error {
	return &wire.CommandError{Code: wire.CodeBadValue, Name: "BadValue", Message: text}
}

// read fills r from a command's envelope in one pass over the body. Fields it doesn't know are the handler's. lastDB
// is where the command before went: most stay there, and its memory is used again.
func (r *Request) read(body bson.Raw, lastDB string) error {
	r.Body = body
	r.ReadPreference.Mode = Primary
	rest := body[4 : len(body)-1]
	for len(rest) > 0 {
		element, after, ok := bsoncore.ReadElement(rest)
		if !ok {
			return badValue("body is not a document") // it was walked: never
		}
		rest = after
		if err := r.field(element, lastDB); err != nil {
			return err
		}
	}
	return r.consistent()
}

func (r *Request) field(element bsoncore.Element, lastDB string) (err error) {
	key := element.KeyBytes()
	value := element.Value()
	switch string(key) {
	case "$db":
		var is bool
		if r.DB, is = sameText(lastDB, value); !is {
			return badValue("$db: expected a string")
		}
	case "lsid":
		return r.Session.readID(value)
	case "txnNumber":
		r.Session.Retryable = true
		r.Session.TxnNumber, err = whole("txnNumber", value)
	case "stmtId", "stmtIds":
		r.Session.StmtIDs, err = statements(value)
	case "autocommit":
		on, is := value.BooleanOK()
		r.Session.InTransaction = is && !on
	case "startTransaction":
		on, is := value.BooleanOK()
		r.Session.StartTransaction = is && on
	case "$readPreference":
		return r.ReadPreference.read(value)
	case "readConcern":
		return r.ReadConcern.read(value)
	case "$clusterTime":
		r.ClusterTime = timestamp(value, "clusterTime")
	case "maxTimeMS":
		var ms int64
		if ms, err = whole("maxTimeMS", value); err == nil && ms > int64(1<<31-1) {
			err = badValue("maxTimeMS: out of range")
		}
		r.MaxTime = time.Duration(ms) * time.Millisecond
	}
	return err
}

func (r *Request) consistent() error {
	if !validDB(r.DB) {
		return &wire.CommandError{Code: 73, Name: "InvalidNamespace", Message: "Invalid database name in $db"}
	}
	s := &r.Session
	if (s.Retryable || s.InTransaction) && !s.Given {
		return &wire.CommandError{Code: 72, Name: "InvalidOptions", Message: "Transaction number requires a session ID to also be specified"}
	}
	s.Retryable = s.Retryable && !s.InTransaction
	return nil
}

// sameText avoids an allocation when value is what old is.
func sameText(old string, value bsoncore.Value) (string, bool) {
	if value.Type != bsoncore.TypeString || len(value.Data) < 5 {
		return "", false
	}
	text := value.Data[4 : len(value.Data)-1]
	if old == string(text) {
		return old, true
	}
	return string(text), true
}

// validDB keeps to what servers take for a database's name.
func validDB(name string) bool {
	return name != "" && len(name) <= 63 && !strings.ContainsAny(name, "/\\. \"\x00") && (name == "$external" || !strings.Contains(name, "$"))
}

func (s *Session) readID(value bsoncore.Value) error {
	doc, is := value.DocumentOK()
	if !is {
		return badValue("lsid: expected a document")
	}
	id, err := doc.LookupErr("id")
	if err != nil {
		return badValue("lsid: expected an id")
	}
	subtype, data, is := id.BinaryOK()
	if !is || subtype != bson.TypeBinaryUUID || len(data) != len(s.ID) {
		return badValue("lsid.id: expected a UUID")
	}
	s.Given = true
	copy(s.ID[:], data)
	return nil
}

func whole(name string, value bsoncore.Value) (int64, error) {
	n, is := value.AsInt64OK()
	if f, double := value.DoubleOK(); double {
		n, is = int64(f), f == float64(int64(f))
	}
	if !is || n < 0 {
		return 0, badValue(name + ": expected a whole number, not negative")
	}
	return n, nil
}

func statements(value bsoncore.Value) (ids []int32, err error) {
	if n, is := value.Int32OK(); is {
		return []int32{n}, nil
	}
	list, is := value.ArrayOK()
	if !is {
		return nil, badValue("stmtIds: expected a list of numbers")
	}
	values, err := list.Values()
	if err != nil {
		return nil, badValue("stmtIds: expected a list of numbers")
	}
	for _, v := range values {
		n, is := v.Int32OK()
		if !is {
			return nil, badValue("stmtIds: expected a list of numbers")
		}
		ids = append(ids, n)
	}
	return ids, nil
}

func (p *ReadPreference) read(value bsoncore.Value) error {
	doc, is := value.DocumentOK()
	if !is {
		return badValue("$readPreference: expected a document")
	}
	mode, _ := doc.Lookup("mode").StringValueOK()
	switch p.Mode = Mode(mode); p.Mode {
	case Primary, PrimaryPreferred, Secondary, SecondaryPreferred, Nearest:
	default:
		return badValue("$readPreference.mode: expected primary, primaryPreferred, secondary, secondaryPreferred or nearest")
	}
	if list, is := doc.Lookup("tags").ArrayOK(); is {
		values, _ := list.Values()
		for _, v := range values {
			set, is := v.DocumentOK()
			if !is {
				return badValue("$readPreference.tags: expected documents")
			}
			p.Tags = append(p.Tags, bson.Raw(set))
		}
	}
	if v, err := doc.LookupErr("maxStalenessSeconds"); err == nil {
		seconds, numeric := v.AsInt64OK()
		if !numeric || seconds < -1 || seconds > 1<<31-1 { // -1: no bound
			return badValue("$readPreference.maxStalenessSeconds: out of range")
		}
		p.MaxStaleness = time.Duration(max(seconds, 0)) * time.Second
	}
	return nil
}

func (c *ReadConcern) read(value bsoncore.Value) error {
	doc, is := value.DocumentOK()
	if !is {
		return badValue("readConcern: expected a document")
	}
	c.Level, _ = doc.Lookup("level").StringValueOK()
	c.AfterClusterTime = timestamp(value, "afterClusterTime")
	return nil
}

func timestamp(value bsoncore.Value, field string) bson.Timestamp {
	doc, is := value.DocumentOK()
	if !is {
		return bson.Timestamp{}
	}
	t, i, _ := doc.Lookup(field).TimestampOK()
	return bson.Timestamp{T: t, I: i}
}
