package remote

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"

	"popfleet/playbooks/spec"
)

// Agent is the fleet-agent binary as it is shipped: by digest, compressed, only to machines that lack it.
type Agent struct {
	Path      string
	SHA256    string // 64 hex digits
	SizeBytes int64
	once      *compressed // nil: compressed anew for every machine
}

// AgentFile measures the binary at path.
func AgentFile(path string) (Agent, error) {
	f, err := os.Open(path)
	if err != nil {
		return Agent{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return Agent{}, fmt.Errorf("read %s: %w", path, err)
	}
	return Agent{Path: path, SHA256: hex.EncodeToString(h.Sum(nil)), SizeBytes: n, once: &compressed{}}, nil
}

// compressed is the binary as it travels, made when the first machine needs it and kept for all others.
type compressed struct {
	mu   sync.Mutex
	data []byte // guarded by mu
}

func (a Agent) wire() ([]byte, error) {
	c := a.once
	if c == nil {
		c = &compressed{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.data != nil {
		return c.data, nil
	}
	f, err := os.Open(a.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out bytes.Buffer
	z := gzip.NewWriter(&out) // what every rescue system can undo
	if _, err := io.Copy(z, f); err != nil {
		return nil, fmt.Errorf("compress %s: %w", a.Path, err)
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	c.data = out.Bytes()
	return c.data, nil
}

// ErrBadDigest: the binary that arrived on the machine is not the one its digest names.
var ErrBadDigest = errors.New("the agent binary arrived damaged")

var digestForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// The one command that is ever given to a shell (docs/protocols/exchange.md). A node that was installed with this agent,
// or runs a release that has it, needs no other. head reads no byte beyond the size, so requests may follow at once.
const bootstrapForm = `d=/run/fleet; f=$d/agent-{sha256}; b=/opt/fleet/blobs/{sha256}; t=$f.$$; umask 077; mkdir -p $d;
same() { echo "{sha256}  $t" | sha256sum -c --status -; };
if [ -x $f ]; then echo HAVE;
elif [ -f $b ] && cp $b $t && same; then chmod 700 $t; mv $t $f; echo HAVE;
else echo NEED; read -r n; head -c "$n" | gzip -dc >$t; same || { rm -f $t; echo BADDIGEST; exit 90; }; chmod 700 $t; mv $t $f; fi;
exec $f exchange`

func (a Agent) command() (string, error) {
	if !digestForm.MatchString(a.SHA256) {
		return "", fmt.Errorf("agent %s: sha256 %q: not a digest to put into a command", a.Path, a.SHA256)
	}
	return strings.ReplaceAll(bootstrapForm, "{sha256}", a.SHA256), nil
}

// bootstrap reads the machine's first word and ships the binary when it is asked for.
func (x *Exchange) bootstrap(ctx context.Context, a Agent, events func(spec.Event)) error {
	word, err := x.readLine()
	if err != nil {
		return fmt.Errorf("start fleet-agent: %w", err)
	}
	switch string(word) {
	case "HAVE":
		return nil
	case "NEED":
		return x.ship(ctx, a, events)
	}
	return fmt.Errorf("start fleet-agent: the machine answered %q instead of HAVE or NEED: %w", shorten(word), x.cut(nil))
}

func (x *Exchange) ship(ctx context.Context, a Agent, events func(spec.Event)) error {
	data, err := a.wire()
	if err != nil {
		return fmt.Errorf("ship agent: %w", err)
	}
	size := int64(len(data))
	tell := func(done int64) {
		events(spec.Event{Kind: spec.KindProgress, Step: "ship agent", Done: done, Total: size})
	}
	if _, err := fmt.Fprintln(x.in, size); err != nil {
		return fmt.Errorf("ship agent: %w", err)
	}
	if err := copyExactly(ctx, x.in, bytes.NewReader(data), size, tell); err != nil {
		return fmt.Errorf("ship agent: %w", err)
	}
	return nil
}

func shorten(b []byte) string {
	const most = 200
	if len(b) > most {
		return string(b[:most]) + "…"
	}
	return string(b)
}
