// Package lifecycle brings nodes from whatever they are to serving: look, plan, act (DESIGN: the life of a node).
//
// The stage of a node is observed, never remembered: what the provider says, who answers on port 22 and on the unlock
// port with which host key, and what the machine says of itself. Plan is a pure function of that; Up carries out the
// first operation of the plan, looks again, and plans again, for all nodes side by side. What it keeps between runs is
// only what cannot be observed: the id of an installation before it is sent, and the host keys a node reported.
//
// It never erases a disk twice for one installation, never erases one unless the machine proves that it runs its rescue
// system, and never sends a key to a host key it did not pin. A host key that is not the pinned one, a machine that
// says it is another node and a disk that is not the one installed end that node's run at once; every other failure is
// tried again a bounded number of times and then reported with what was waited for, since when, and the command that
// goes on. Other nodes are never held up.
package lifecycle
