package comments

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/connstring"

	"popfleet/internal/strictjson"
)

// EnvModeratorToken names the environment variable that holds the moderator's token; on a node it comes from
// services.app.env of the fleet file, which is kept as a secret.
const EnvModeratorToken = "COMMENTS_MODERATOR_TOKEN"

// Config is app.json (docs/protocols/node.md).
type Config struct {
	Listen   string `json:"listen"`
	Mongo    string `json:"mongo"` // mongodb:// of the replicator
	Database string `json:"database"`
	Node     string `json:"node"`
	Control  string `json:"control"`
	// ModeratorTokenFile holds the moderator's token, unless the environment does. Without a token nobody moderates.
	ModeratorTokenFile string `json:"moderator_token_file,omitempty"`

	token string
}

const minTokenBytes = 16

// Default is what a node runs, but for its name.
func Default() Config {
	return Config{Listen: "127.0.0.1:8080", Mongo: "mongodb://127.0.0.1:27017", Database: "comments", Control: "/run/fleet-app/control.sock"}
}

// Load reads the file at path over the defaults, then the environment, and validates the outcome.
func Load(path string, environment func(string) string) (Config, error) {
	c := Default()
	if err := strictjson.File(path, &c); err != nil {
		return c, err
	}
	err := errors.Join(c.Validate(), c.readToken(environment))
	if err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Validate reports every problem at once.
func (c Config) Validate() error {
	var all []error
	bad := func(key, value, expected string) {
		all = append(all, fmt.Errorf("%s %q: expected %s", key, value, expected))
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		// Beyond loopback, the header that says whom the transport speaks for could be anyone's.
		bad("listen", c.Listen, "a loopback address with a port: the transport in front is on this node")
	}
	if _, err := connstring.ParseAndValidate(c.Mongo); err != nil {
		all = append(all, errors.New("mongo: expected mongodb://host:port")) // may hold a password: not repeated
	}
	if c.Database == "" || strings.ContainsAny(c.Database, `/\. "$`+"\x00") || len(c.Database) > 63 {
		bad("database", c.Database, "a database's name")
	}
	if c.Node == "" {
		bad("node", c.Node, "this node's name")
	}
	if !filepath.IsAbs(c.Control) {
		bad("control", c.Control, "an absolute path")
	}
	return errors.Join(all...)
}

func (c *Config) readToken(environment func(string) string) error {
	c.token = environment(EnvModeratorToken)
	from := EnvModeratorToken
	if c.token == "" && c.ModeratorTokenFile != "" {
		data, err := os.ReadFile(c.ModeratorTokenFile)
		if err != nil {
			return fmt.Errorf("moderator_token_file: %w", err)
		}
		c.token, from = strings.TrimSpace(string(data)), "moderator_token_file"
		if c.token == "" {
			return errors.New("moderator_token_file: is empty")
		}
	}
	if c.token != "" && len(c.token) < minTokenBytes {
		return fmt.Errorf("%s: expected at least %d characters", from, minTokenBytes)
	}
	return nil
}
