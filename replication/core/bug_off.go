//go:build !mutants

package core

import "popfleet/replication/crdt"

// mutations is nothing in a build that ships.
type mutations struct{}

func (mutations) bug(Bug) bool { return false }

func (mutations) mutate(state crdt.Doc, _ *Change) crdt.Doc { return state }
