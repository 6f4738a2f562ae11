package front

import (
	"fmt"
	"strconv"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/wire"
)

// local answers what is about the connection itself. None of it needs a login: the servers' own rule for these names.
func (c *conn) local(r *Request) (body bson.Raw, local bool, err error) {
	switch r.Command {
	case "hello", "isMaster", "ismaster":
		body, err = c.hello(r.Body, r.Command)
	case "ping":
		body, err = document(bson.D{{Key: "ok", Value: 1.0}})
	case "buildInfo", "buildinfo":
		body, err = c.buildInfo()
	case "whatsmyuri":
		body, err = document(bson.D{{Key: "you", Value: c.client.Remote}, {Key: "ok", Value: 1.0}})
	case "connectionStatus":
		body, err = c.connectionStatus()
	case "saslStart":
		body, err = c.saslStart(r.Body, r.DB)
	case "saslContinue":
		body, err = c.saslContinue(r.Body)
	case "logout":
		body, err = c.logout()
	default:
		return nil, false, nil
	}
	return body, true, err
}

func document(d bson.D) (bson.Raw, error) {
	b, err := bson.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encode reply: %w", err)
	}
	return b, nil
}

func (c *conn) buildInfo() (bson.Raw, error) {
	numbers, err := versionArray(c.server.config.Version)
	if err != nil {
		return nil, err
	}
	return document(bson.D{{Key: "version", Value: c.server.config.Version}, {Key: "versionArray", Value: numbers}, {Key: "modules", Value: bson.A{}},
		{Key: "bits", Value: int32(64)}, {Key: "debug", Value: false}, {Key: "maxBsonObjectSize", Value: int32(wire.MaxDocumentBytes)}, {Key: "ok", Value: 1.0}})
}

// versionArray is [7, 0, 42, 0] for 7.0.42.
func versionArray(version string) (bson.A, error) {
	part := strings.Split(version, ".")
	if len(part) != 3 {
		return nil, fmt.Errorf("%q: expected three numbers with dots", version)
	}
	var numbers bson.A
	for _, p := range part {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("%q: expected three numbers with dots", version)
		}
		numbers = append(numbers, int32(n))
	}
	return append(numbers, int32(0)), nil
}

func (c *conn) connectionStatus() (bson.Raw, error) {
	users := bson.A{}
	if c.client.User != "" {
		users = append(users, bson.D{{Key: "user", Value: c.client.User}, {Key: "db", Value: authDB}})
	}
	return document(bson.D{{Key: "authInfo", Value: bson.D{{Key: "authenticatedUsers", Value: users}, {Key: "authenticatedUserRoles", Value: bson.A{}}}},
		{Key: "ok", Value: 1.0}})
}
