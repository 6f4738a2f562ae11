package front

import (
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/wire"
)

// sessionMinutes is how long drivers keep an idle session; servers have 30.
const sessionMinutes = 30

// hello greets as a mongos ("isdbgrid"). topologyVersion is left out, so no driver asks for streamed hellos; setName is
// left out, so nobody looks for other members.
func (c *conn) hello(body bson.Raw, command string) (bson.Raw, error) {
	d := bson.D{}
	if command == "hello" {
		d = append(d, bson.E{Key: "isWritablePrimary", Value: true})
	} else {
		d = append(d, bson.E{Key: "ismaster", Value: true})
		if ok, is := body.Lookup("helloOk").BooleanOK(); is && ok {
			d = append(d, bson.E{Key: "helloOk", Value: true})
		}
	}
	d = append(d, bson.D{{Key: "msg", Value: "isdbgrid"}, {Key: "maxBsonObjectSize", Value: int32(wire.MaxDocumentBytes)},
		{Key: "maxMessageSizeBytes", Value: int32(wire.MaxMessageBytes)}, {Key: "maxWriteBatchSize", Value: int32(wire.MaxWriteBatchSize)},
		{Key: "localTime", Value: bson.NewDateTimeFromTime(time.Now())}, {Key: "logicalSessionTimeoutMinutes", Value: int32(sessionMinutes)},
		{Key: "connectionId", Value: c.client.ID}, {Key: "minWireVersion", Value: int32(0)},
		{Key: "maxWireVersion", Value: min(c.server.config.MaxWireVersion, MaxWireVersion)}, {Key: "readOnly", Value: false}}...)
	if common := c.negotiate(body); len(common) > 0 {
		d = append(d, bson.E{Key: "compression", Value: common})
	}
	if _, err := body.LookupErr("saslSupportedMechs"); err == nil && !c.server.config.Open {
		// The same for every name: who exists is not told before a login.
		d = append(d, bson.E{Key: "saslSupportedMechs", Value: bson.A{mechanism}})
	}
	if early := c.speculate(body); early != nil {
		d = append(d, bson.E{Key: "speculativeAuthenticate", Value: early})
	}
	return document(append(d, bson.E{Key: "ok", Value: 1.0}))
}

// negotiate takes from the client's list, in its order, what both know.
func (c *conn) negotiate(body bson.Raw) (common bson.A) {
	list, is := body.Lookup("compression").ArrayOK()
	if !is {
		return nil
	}
	values, err := list.Values()
	if err != nil {
		return nil
	}
	for _, v := range values {
		name, _ := v.StringValueOK()
		for _, ours := range c.server.config.Compressors {
			if ours.String() == name {
				common = append(common, name)
				c.in.Allow(ours)
			}
		}
	}
	return common
}

// serveLegacy answers the OP_QUERY that older drivers begin with. Nothing but the greeting exists in that form.
func (c *conn) serveLegacy(m *wire.Message) error {
	body := m.Body
	if inner, is := body.Lookup("$query").DocumentOK(); is {
		body = inner
	}
	reply := &wire.Reply{Flags: wire.AwaitCapable}
	var doc bson.Raw
	var err error
	switch command := c.command(body); command {
	case "hello", "isMaster", "ismaster":
		doc, err = c.hello(body, command)
	default:
		c.server.failed.Add(1)
		reply.Flags |= wire.QueryFailure
		doc = (&wire.CommandError{Code: 352, Name: "UnsupportedOpQueryCommand",
			Message: "Unsupported OP_QUERY command: " + command + ". The client driver may require an upgrade."}).Document()
	}
	if err != nil {
		return err
	}
	reply.Documents = []bson.Raw{doc}
	return c.write(&wire.Message{Op: wire.OpReply, ResponseTo: m.RequestID, Body: doc, Reply: reply})
}
