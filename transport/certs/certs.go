// Package certs holds the transport's certificate and the fleet's roots of trust as they lie on disk, and follows the
// files. A file that is missing, half written or does not fit its key leaves the last good set in force and is said;
// only the first load can fail.
package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// Paths are the three files.
type Paths struct {
	Cert string `json:"cert"`
	Key  string `json:"key"`
	CA   string `json:"ca"`
}

const lookEvery = 2 * time.Second

// Store is the set in force. It is safe for concurrent use.
type Store struct {
	paths   Paths
	current atomic.Pointer[set]
}

type set struct {
	cert  *tls.Certificate
	roots *x509.CertPool
	seen  stamp
}

// stamp changes whenever one of the files does.
type stamp [3]struct {
	modified time.Time
	size     int64
}

// Load reads the files for the first time.
func Load(p Paths) (*Store, error) {
	s := &Store{paths: p}
	fresh, err := read(p)
	if err != nil {
		return nil, err
	}
	s.current.Store(fresh)
	return s, nil
}

// Certificate is the leaf with its key, to be shown to others.
func (s *Store) Certificate() *tls.Certificate { return s.current.Load().cert }

// Roots is the fleet's CA.
func (s *Store) Roots() *x509.CertPool { return s.current.Load().roots }

// NotAfter is when the certificate ends.
func (s *Store) NotAfter() time.Time { return s.current.Load().cert.Leaf.NotAfter }

// Ended is an error once the certificate in force has run out. That is said, and never a reason not to start: the
// clock may be wrong, and a new certificate may be on its way.
func (s *Store) Ended() error { return s.current.Load().ended() }

func (s *set) ended() error {
	if end := s.cert.Leaf.NotAfter; time.Now().After(end) {
		return fmt.Errorf("certificate ended %s: run fleet up, or set the clock right", end.UTC().Format(time.RFC3339))
	}
	return nil
}

// Watch looks at the files every two seconds until ctx ends. Connections that stand keep what they began with.
func (s *Store) Watch(ctx context.Context, log *slog.Logger) {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	var refused stamp // said once per state of the files
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		now := look(s.paths)
		if now == s.current.Load().seen || now == refused {
			continue
		}
		fresh, err := read(s.paths)
		if err == nil && s.Ended() == nil {
			err = fresh.ended()
		}
		if err != nil {
			refused = now
			log.Error("new certificate not usable, the old one stays", "error", err, "not_after", s.NotAfter())
			continue
		}
		s.current.Store(fresh)
		log.Info("certificate changed", "not_after", fresh.cert.Leaf.NotAfter)
	}
}

func read(p Paths) (*set, error) {
	seen := look(p) // before reading: a change in between is seen again
	cert, err := tls.LoadX509KeyPair(p.Cert, p.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", p.Cert, p.Key, err)
	}
	if cert.Leaf == nil {
		return nil, fmt.Errorf("certificate %s: no leaf", p.Cert)
	}
	text, err := os.ReadFile(p.CA)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("ca %s: no certificate in it", p.CA)
	}
	return &set{&cert, roots, seen}, nil
}

func look(p Paths) stamp {
	var s stamp
	for i, path := range []string{p.Cert, p.Key, p.CA} {
		if info, err := os.Stat(path); err == nil {
			s[i].modified, s[i].size = info.ModTime(), info.Size()
		}
	}
	return s
}

// Check says what is missing from the paths.
func (p Paths) Check() error {
	if p.Cert == "" || p.Key == "" || p.CA == "" {
		return errors.New("tls: cert, key and ca must all be there")
	}
	return nil
}
