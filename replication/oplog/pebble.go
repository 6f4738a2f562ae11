package oplog

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble"
)

// What Pebble may hold in memory: three memtables and the block cache, 56 MiB, and the readers of 64 open tables beside.
const (
	memTable   = 16 << 20
	memTables  = 3
	blockCache = 8 << 20
	openFiles  = 64 + 10 // Pebble keeps ten for itself
)

// openPebble opens the store below the log. Pebble makes the directory but leaves its name in the parent to chance, and
// answers a directory that can't be synced with a panic.
func (l *Log) openPebble() (db *pebble.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	if err := l.fs.MkdirAll(l.dir, 0o700); err != nil {
		return nil, err
	}
	if err := syncDir(l.fs, l.fs.PathDir(l.dir)); err != nil {
		return nil, err
	}
	cache := pebble.NewCache(blockCache)
	defer cache.Unref() // Open takes its own reference
	return pebble.Open(l.dir, l.pebbleOptions(cache))
}

func (l *Log) pebbleOptions(cache *pebble.Cache) *pebble.Options {
	return &pebble.Options{
		FS: l.opts.FS, Logger: quiet{l}, Cache: cache, MaxOpenFiles: openFiles,
		MemTableSize: memTable, MemTableStopWritesThreshold: memTables, MaxManifestFileSize: 4 << 20,
		FormatMajorVersion:       pebble.FormatNewest,
		MaxConcurrentCompactions: func() int { return 1 },
	}
}

// quiet takes Pebble's messages. A fatal one ends the log, not the process: its owner closes what else there is first.
type quiet struct{ l *Log }

var _ pebble.Logger = quiet{}

func (q quiet) Infof(format string, args ...any)  { q.log(slog.LevelDebug, format, args) }
func (q quiet) Errorf(format string, args ...any) { q.log(slog.LevelWarn, format, args) }
func (q quiet) Fatalf(format string, args ...any) { q.l.fail(fmt.Sprintf(format, args...)) }

func (q quiet) log(level slog.Level, format string, args []any) {
	q.l.opts.Log.Log(context.Background(), level, "pebble", "message", fmt.Sprintf(format, args...))
}
