package front

import (
	"errors"
	"fmt"
	"time"

	"popfleet/replication/wire"
)

// Config is how clients are greeted and bounded.
type Config struct {
	Users map[string]Credential // who may log in, on the database admin
	Open  bool                  // nobody has to log in: for a loopback listener whose reach is the node itself

	MaxWireVersion int32  // the backend's; what is answered is at most MaxWireVersion
	Version        string // the backend's, for buildInfo, such as 7.0.42
	Compressors    []wire.Compressor
	Limits         wire.Limits

	MaxClients      int
	GreetingTimeout time.Duration // from accept to being logged in
	IdleTimeout     time.Duration // between two messages
	MessageTimeout  time.Duration // from a message's first byte to its last
	WriteTimeout    time.Duration // for one reply
	DrainTimeout    time.Duration // for commands on their way when the end was asked for
}

// MaxWireVersion is the newest protocol this package knows (MongoDB 7.0).
const MaxWireVersion = 21

// minWireVersion is the oldest whose meaning is kept: sessions and retryable writes (MongoDB 3.6).
const minWireVersion = 6

// Default is complete but for who may log in.
func Default() Config {
	return Config{MaxWireVersion: MaxWireVersion, Version: "7.0.0", Compressors: wire.Compressors(), Limits: wire.DefaultLimits(),
		MaxClients: 4096, GreetingTimeout: 10 * time.Second, IdleTimeout: time.Hour, MessageTimeout: 30 * time.Second,
		WriteTimeout: 30 * time.Second, DrainTimeout: 15 * time.Second}
}

// Validate reports every problem at once.
func (c Config) Validate() error {
	var all []error
	if c.Open == (len(c.Users) > 0) {
		all = append(all, errors.New("users: expected at least one, or open and none"))
	}
	for name, credential := range c.Users {
		if err := credential.validate(); name == "" || err != nil {
			all = append(all, fmt.Errorf("users[%q]: %w", name, errors.Join(err, emptyName(name))))
		}
	}
	if c.MaxWireVersion < minWireVersion {
		all = append(all, fmt.Errorf("max_wire_version %d: expected %d at least; the backend is older than MongoDB 3.6", c.MaxWireVersion, minWireVersion))
	}
	if _, err := versionArray(c.Version); err != nil {
		all = append(all, fmt.Errorf("version: %w", err))
	}
	if c.MaxClients < 1 {
		all = append(all, fmt.Errorf("max_clients %d: expected 1 at least", c.MaxClients))
	}
	for name, d := range map[string]time.Duration{"greeting_timeout": c.GreetingTimeout, "idle_timeout": c.IdleTimeout,
		"message_timeout": c.MessageTimeout, "write_timeout": c.WriteTimeout, "drain_timeout": c.DrainTimeout} {
		if d <= 0 {
			all = append(all, fmt.Errorf("%s %s: expected more than nothing", name, d))
		}
	}
	return errors.Join(all...)
}

func emptyName(name string) error {
	if name == "" {
		return errors.New("empty name")
	}
	return nil
}
