package back

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"popfleet/replication/wire"
)

// Config is where the backend is and how much it is asked at once.
type Config struct {
	Address     string // host:port
	Login       *Login // nil: the backend asks for none
	Name        string // what the backend's logs call us
	Compressors []wire.Compressor
	Limits      wire.Limits

	Size           int           // connections at most, and so commands in flight
	DialTimeout    time.Duration // for connecting, hello and login together
	CommandTimeout time.Duration // for waiting for a connection and for the reply, when the context has no earlier end
	IdleTimeout    time.Duration // an unused connection is closed after it, when next looked at

	// PinCursors sends getMore and killCursors over the connection that opened the cursor, for backends that keep
	// cursors by connection.
	PinCursors bool
	// Strip are fields of commands that the backend must not see. What it is known to refuse is stripped without.
	Strip []string
}

// Login is the service user, on the database admin.
type Login struct {
	User     string
	Password func(context.Context) (string, error) // read when a connection is made, and not kept
}

// Default is complete but for the address.
func Default() Config {
	return Config{Name: "fleet-replicator", Limits: wire.DefaultLimits(), Size: 64, DialTimeout: 5 * time.Second, CommandTimeout: 60 * time.Second,
		IdleTimeout: 10 * time.Minute}
}

// Validate reports every problem at once.
func (c Config) Validate() error {
	var all []error
	if _, _, err := net.SplitHostPort(c.Address); err != nil {
		all = append(all, fmt.Errorf("address %q: expected host:port", c.Address))
	}
	if c.Login != nil && (c.Login.User == "" || c.Login.Password == nil) {
		all = append(all, errors.New("login: expected a user and where its password is"))
	}
	if c.Size < 1 {
		all = append(all, fmt.Errorf("size %d: expected 1 at least", c.Size))
	}
	for name, d := range map[string]time.Duration{"dial_timeout": c.DialTimeout, "command_timeout": c.CommandTimeout, "idle_timeout": c.IdleTimeout} {
		if d <= 0 {
			all = append(all, fmt.Errorf("%s %s: expected more than nothing", name, d))
		}
	}
	return errors.Join(all...)
}
