package front

import (
	"crypto/hmac"
	"crypto/sha256"
	"time"

	"github.com/xdg-go/scram"
	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/wire"
)

// authDB is where users live; drivers ask there unless told otherwise.
const authDB = "admin"

// maxLoginFailures is how many wrong logins a connection may try; a driver gives up after the first.
const maxLoginFailures = 3

// login is a connection's SCRAM conversation, one at a time.
type login struct {
	conversation *scram.ServerConversation
	id           int32
	short        bool // skipEmptyExchange: the proof's answer ends it
	failures     int
}

// lookup gives an unknown user keys that no password fits, the same each time, so that a stranger can't tell who exists.
func (s *Server) lookup(user string) (scram.StoredCredentials, error) {
	if c, known := s.config.Users[user]; known {
		return c.stored, nil
	}
	derive := func(what string) []byte {
		h := hmac.New(sha256.New, s.secret)
		h.Write([]byte(what + "\x00" + user))
		return h.Sum(nil)
	}
	return scram.StoredCredentials{KeyFactors: scram.KeyFactors{Salt: string(derive("salt")[:saltBytes]), Iters: DefaultIterations},
		StoredKey: derive("stored"), ServerKey: derive("server")}, nil
}

// speculate is a saslStart inside hello; one that fails is left out of the answer, and the driver begins anew.
func (c *conn) speculate(hello bson.Raw) bson.Raw {
	start, is := hello.Lookup("speculativeAuthenticate").DocumentOK()
	if !is || c.server.config.Open {
		return nil
	}
	db, _ := start.Lookup("db").StringValueOK()
	reply, err := c.saslStart(start, db)
	if err != nil {
		return nil
	}
	return reply
}

func (c *conn) saslStart(body bson.Raw, db string) (bson.Raw, error) {
	if name, _ := body.Lookup("mechanism").StringValueOK(); name != mechanism {
		return nil, &wire.CommandError{Code: wire.CodeMechanismUnavailable, Name: "MechanismUnavailable",
			Message: "Received authentication for a mechanism which is not enabled; expected " + mechanism}
	}
	if db != authDB {
		return nil, c.refuse("users live on the database admin: add authSource=admin to the URI", nil)
	}
	short, _ := body.Lookup("options", "skipEmptyExchange").BooleanOK()
	c.login.conversation, c.login.short = c.server.scram.NewConversation(), short
	c.login.id++
	return c.step(body)
}

func (c *conn) saslContinue(body bson.Raw) (bson.Raw, error) {
	id, _ := body.Lookup("conversationId").Int32OK()
	if c.login.conversation == nil || id != c.login.id {
		return nil, c.refuse("no such conversation", nil)
	}
	if c.login.conversation.Valid() { // the empty exchange of drivers that don't skip it
		return c.accept(nil)
	}
	return c.step(body)
}

func (c *conn) step(body bson.Raw) (bson.Raw, error) {
	_, payload, is := body.Lookup("payload").BinaryOK()
	if !is {
		return nil, c.refuse("payload missing", nil)
	}
	conversation := c.login.conversation
	answer, err := conversation.Step(string(payload))
	if err != nil {
		return nil, c.refuse("wrong user or password, or a broken conversation", err)
	}
	if conversation.Valid() && c.login.short {
		return c.accept([]byte(answer))
	}
	return c.saslReply(false, []byte(answer))
}

// accept makes the connection its user's.
func (c *conn) accept(answer []byte) (bson.Raw, error) {
	c.client.User = c.login.conversation.Username()
	c.login.conversation = nil
	c.loggedIn = true
	c.in.SetLimits(c.server.config.Limits)
	return c.saslReply(true, answer)
}

func (c *conn) saslReply(done bool, payload []byte) (bson.Raw, error) {
	return document(bson.D{{Key: "conversationId", Value: c.login.id}, {Key: "done", Value: done},
		{Key: "payload", Value: bson.Binary{Data: payload}}, {Key: "ok", Value: 1.0}})
}

// refuse ends the conversation. The client learns no more than that it failed; the log says why.
func (c *conn) refuse(reason string, cause error) error {
	user := ""
	if c.login.conversation != nil {
		user = c.login.conversation.Username()
	}
	c.login.conversation = nil
	c.server.authFailed.Add(1)
	c.server.log.Warn("login refused", "client", c.client.Remote, "user", user, "reason", reason, "error", cause)
	if c.login.failures++; c.login.failures >= maxLoginFailures {
		c.leave()
	}
	return &wire.CommandError{Code: wire.CodeAuthenticationFailed, Name: "AuthenticationFailed", Message: "Authentication failed."}
}

func (c *conn) logout() (bson.Raw, error) {
	if !c.server.config.Open {
		c.loggedIn, c.client.User, c.strange = false, "", time.Now()
		c.in.SetLimits(wire.GreetingLimits())
	}
	return document(bson.D{{Key: "ok", Value: 1.0}})
}
