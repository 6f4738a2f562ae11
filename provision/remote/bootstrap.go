package remote

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"

	"popfleet/playbooks/spec"
)

// Agent is the fleet-agent binary as it is shipped: by digest, only to machines that lack it.
type Agent struct {
	Path      string
	SHA256    string // 64 hex digits
	SizeBytes int64
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
	return Agent{Path: path, SHA256: hex.EncodeToString(h.Sum(nil)), SizeBytes: n}, nil
}

// ErrBadDigest: the binary that arrived on the machine is not the one its digest names.
var ErrBadDigest = errors.New("the agent binary arrived damaged")

var digestForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// The one command that is ever given to a shell (docs/protocols/exchange.md). head reads no byte beyond the size, so
// requests may follow the binary at once.
const bootstrapForm = `d=/run/fleet; f=$d/agent-{sha256}; umask 077; mkdir -p $d;
if [ -x $f ]; then echo HAVE; else echo NEED; t=$f.$$; head -c {size} >$t;
  echo "{sha256}  $t" | sha256sum -c --status - || { rm -f $t; echo BADDIGEST; exit 90; }; chmod 700 $t; mv $t $f; fi;
exec $f exchange`

func (a Agent) command() (string, error) {
	if !digestForm.MatchString(a.SHA256) || a.SizeBytes <= 0 {
		return "", fmt.Errorf("agent %s: sha256 %q, %d bytes: not a digest and size to put into a command", a.Path, a.SHA256, a.SizeBytes)
	}
	return strings.NewReplacer("{sha256}", a.SHA256, "{size}", strconv.FormatInt(a.SizeBytes, 10)).Replace(bootstrapForm), nil
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
	f, err := os.Open(a.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	tell := func(done int64) {
		events(spec.Event{Kind: spec.KindProgress, Step: "ship agent", Done: done, Total: a.SizeBytes})
	}
	if err := copyExactly(ctx, x.in, f, a.SizeBytes, tell); err != nil {
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
