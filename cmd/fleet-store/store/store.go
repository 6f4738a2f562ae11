// Package store is the embedded database of a node: FerretDB with SQLite behind the MongoDB wire protocol, for trying
// popfleet and for small fleets. It holds this node's data only; replication is the replicator's. A real mongod takes
// its place by one line in the fleet file. When the data folder can't be opened it fails at the start, never later.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/FerretDB/FerretDB/ferretdb"

	"popfleet/internal/control"
	"popfleet/internal/strictjson"
	"popfleet/internal/version"
)

// Config is store.json.
type Config struct {
	Listen  string `json:"listen"`  // host:port of the MongoDB wire protocol; loopback, there is no authentication
	Dir     string `json:"dir"`     // data, one SQLite file per database
	Control string `json:"control"` // unix socket for health, status, drain
}

// Default is complete but for nothing: it is what a node runs.
func Default() Config {
	return Config{Listen: "127.0.0.1:27018", Dir: "/var/lib/fleet/store", Control: "/run/fleet-store/control.sock"}
}

// Load reads and validates the file at path over the defaults.
func Load(path string) (Config, error) {
	c := Default()
	if err := strictjson.File(path, &c); err != nil {
		return c, err
	}
	if err := c.Validate(); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Validate reports every problem at once.
func (c Config) Validate() error {
	var all []error
	host, _, err := net.SplitHostPort(c.Listen)
	switch ip := net.ParseIP(host); {
	case err != nil:
		all = append(all, fmt.Errorf("listen %q: expected host:port", c.Listen))
	case ip == nil || !ip.IsLoopback():
		all = append(all, fmt.Errorf("listen %q: expected a loopback address: the store asks nobody for a password", c.Listen))
	}
	if !filepath.IsAbs(c.Dir) {
		all = append(all, fmt.Errorf("dir %q: expected an absolute path", c.Dir))
	}
	if !filepath.IsAbs(c.Control) {
		all = append(all, fmt.Errorf("control %q: expected an absolute path", c.Control))
	}
	return errors.Join(all...)
}

// Run serves until ctx ends, then lets running commands finish. ready, when not nil, is told the listening address.
func Run(ctx context.Context, c Config, log *slog.Logger, ready func(addr string)) error {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	db, err := ferretdb.New(&ferretdb.Config{
		Listener:  ferretdb.ListenerConfig{TCP: c.Listen},
		Logger:    log.With("part", "ferretdb"),
		Handler:   "sqlite",
		SQLiteURL: sqliteURL(c.Dir),
	})
	if err != nil {
		return fmt.Errorf("open store in %s: %w", c.Dir, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	dbErr := make(chan error, 1)
	wg.Go(func() { dbErr <- db.Run(ctx); cancel() })
	addr, err := listenAddr(db)
	if err != nil {
		cancel()
		wg.Wait()
		return err
	}
	log.Info("store serves", "addr", addr, "dir", c.Dir, "version", version.Version)
	if ready != nil {
		ready(addr)
	}
	err = control.Serve(ctx, c.Control, &face{addr: addr, dir: c.Dir})
	cancel()
	wg.Wait()
	return errors.Join(err, <-dbErr)
}

// sqliteURL asks SQLite to sync every commit to the disk: a write that was acknowledged survives a power cut.
func sqliteURL(dir string) string {
	u := url.URL{Scheme: "file", Path: filepath.Clean(dir) + "/"}
	u.RawQuery = url.Values{"_pragma": {"busy_timeout(10000)", "journal_mode(wal)", "synchronous(full)"}}.Encode()
	return u.String()
}

func listenAddr(db *ferretdb.FerretDB) (string, error) {
	u, err := url.Parse(db.MongoDBURI())
	if err != nil {
		return "", fmt.Errorf("store's own address: %w", err)
	}
	return u.Host, nil
}

// face is the control socket's view of the store.
type face struct {
	addr, dir string

	mu       sync.Mutex
	draining bool
}

func (f *face) Health() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return ping(ctx, f.addr)
}

func (f *face) Status() control.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := control.Status{Service: "store", Version: version.Version, State: control.Serving, Detail: detail{
		Engine: "ferretdb 1.24 sqlite", Address: f.addr, Dir: f.dir, SizeBytes: sizeOf(f.dir)}}
	if f.draining {
		// Every command is answered where it stands: nothing runs on after its reply, so draining is drained.
		s.State = control.Drained
	}
	return s
}

// Drain only tells: who writes here is the replicator's business, and it drains before the store.
func (f *face) Drain()   { f.set(true) }
func (f *face) Undrain() { f.set(false) }

func (f *face) set(draining bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.draining = draining
}

type detail struct {
	Engine    string `json:"engine"`
	Address   string `json:"address"`
	Dir       string `json:"dir"`
	SizeBytes int64  `json:"size_bytes"`
}

func sizeOf(dir string) (total int64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			total += info.Size()
		}
	}
	return total
}
