package lifecycle

import "cmp"

// candidate is a node of the receiver's PoP, as the choice of a source sees it.
type candidate struct {
	Node      string
	Has       bool // the content is there, or on its way there over our uplink
	Barred    bool // it failed this receiver, or lied to anybody
	Listening bool
	Opening   bool // it was asked to listen and has not answered yet
	Receivers int
}

// choice is where a receiver's content comes from.
type choice string

// The choices. "Us" is the operator's own uplink.
const (
	fromUs   choice = "us"
	fromPeer choice = "peer"
	openPeer choice = "open" // ask the node to listen, then wait for it
	waitPeer choice = "wait"
)

// maxReceivers is how many nodes one node serves at a time: below what its server admits (agents/share).
const maxReceivers = 40

// choose says where a receiver takes content from. It is the whole of the rule: whoever asks first gets it over our
// uplink, everybody else of the PoP from a node that has it, the least busy one, and nobody waits for a node that is not
// about to listen.
func choose(nodes []candidate) (node string, c choice) {
	var best candidate
	c = fromUs
	for _, n := range nodes {
		if !n.Has || n.Barred || n.Listening && n.Receivers >= maxReceivers {
			continue
		}
		if c == fromUs || rank(n) < rank(best) || rank(n) == rank(best) && less(n, best) {
			best, c = n, how(n)
		}
	}
	return best.Node, c
}

// rank orders candidates by how soon they can serve.
func rank(n candidate) int {
	switch {
	case n.Listening:
		return 0
	case n.Opening:
		return 1
	}
	return 2
}

func how(n candidate) choice {
	switch {
	case n.Listening:
		return fromPeer
	case n.Opening:
		return waitPeer
	}
	return openPeer
}

func less(a, b candidate) bool {
	if by := cmp.Compare(a.Receivers, b.Receivers); by != 0 {
		return by < 0
	}
	return a.Node < b.Node
}
