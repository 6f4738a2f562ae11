package lifecycle

import "testing"

func TestChoose(t *testing.T) {
	has := candidate{Node: "fsn-1", Has: true}
	with := func(n candidate, change func(*candidate)) candidate { change(&n); return n }
	listening := with(has, func(n *candidate) { n.Listening = true })
	for name, c := range map[string]struct {
		nodes []candidate
		node  string
		want  choice
	}{
		"nobody":             {nil, "", fromUs},
		"nobody has it":      {[]candidate{{Node: "fsn-1", Listening: true}}, "", fromUs},
		"one that has it":    {[]candidate{has}, "fsn-1", openPeer},
		"one about to serve": {[]candidate{with(has, func(n *candidate) { n.Opening = true })}, "fsn-1", waitPeer},
		"one that serves":    {[]candidate{listening}, "fsn-1", fromPeer},
		"one that failed":    {[]candidate{with(listening, func(n *candidate) { n.Barred = true })}, "", fromUs},
		"one that is full":   {[]candidate{with(listening, func(n *candidate) { n.Receivers = maxReceivers })}, "", fromUs},
		"a listener before one that is asked first": {
			[]candidate{has, with(listening, func(n *candidate) { n.Node, n.Receivers = "fsn-2", 3 })}, "fsn-2", fromPeer},
		"the least busy": {
			[]candidate{with(listening, func(n *candidate) { n.Receivers = 2 }), with(listening, func(n *candidate) { n.Node, n.Receivers = "fsn-2", 1 })},
			"fsn-2", fromPeer},
		"by name": {[]candidate{with(listening, func(n *candidate) { n.Node = "fsn-2" }), listening}, "fsn-1", fromPeer},
	} {
		if node, got := choose(c.nodes); got != c.want || got != fromUs && node != c.node {
			t.Errorf("%s: %s from %q, want %s from %q", name, got, node, c.want, c.node)
		}
	}
}
