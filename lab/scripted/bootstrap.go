package scripted

import (
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"regexp"
	"strconv"
	"strings"
)

// bootstrap is the one command an operator runs (docs/protocols/exchange.md), digest cut out. White space between its
// words is free: the document breaks the line for its readers.
var bootstrap = regexp.MustCompile(`^` + strings.Join([]string{
	`d=/run/fleet;`, `f=\$d/agent-([0-9a-f]{64});`, `b=/opt/fleet/blobs/([0-9a-f]{64});`, `t=\$f\.\$\$;`, `umask 077;`, `mkdir -p \$d;`,
	`same\(\) \{ echo "([0-9a-f]{64})  \$t" \| sha256sum -c --status -; \};`,
	`if \[ -x \$f \]; then echo HAVE;`,
	`elif \[ -f \$b \] && cp \$b \$t && same; then chmod 700 \$t; mv \$t \$f; echo HAVE;`,
	`else echo NEED; read -r n; head -c "\$n" \| gzip -dc >\$t;`, `same \|\| \{ rm -f \$t; echo BADDIGEST; exit 90; \};`,
	`chmod 700 \$t; mv \$t \$f;`, `fi;`, `exec \$f exchange`,
}, `\s+`) + `$`)

// serveCommand runs what an operator asked a shell to run: the bootstrap, or nothing else.
func (m *Machine) serveCommand(bt *boot, s *session) {
	g := bootstrap.FindStringSubmatch(strings.TrimSpace(s.command))
	if g == nil || g[1] != g[2] || g[1] != g[3] {
		m.ledger.hear(s.link, []byte(s.command+"\n"))
		s.say("sh: the scripted machine runs the bootstrap of docs/protocols/exchange.md only")
		s.exit(127)
		return
	}
	in := bufio.NewReaderSize(s, 64<<10)
	if !m.bootstrapped(bt, s, in, g[1]) {
		s.exit(90)
		return
	}
	x := &exchange{m: m, bt: bt, s: s, in: in}
	x.serve()
	s.exit(0)
}

// bootstrapped receives the agent if it is not there yet, and checks that what arrived is what was announced.
func (m *Machine) bootstrapped(bt *boot, s *session, in *bufio.Reader, digest string) bool {
	m.mu.Lock()
	have := bt.agents[digest] || s.link == "system" && m.installed().Agents[digest]
	m.mu.Unlock()
	if have {
		fmt.Fprintln(s, "HAVE")
		return true
	}
	fmt.Fprintln(s, "NEED")
	if err := receiveAgent(in, digest); err != nil {
		m.b.opt.Log.Info("agent did not arrive whole", "machine", m.cfg.Load().Label, "error", err)
		fmt.Fprintln(s, "BADDIGEST")
		return false
	}
	m.ledger.count(&m.ledger.agents, digest)
	m.mu.Lock()
	defer m.mu.Unlock()
	bt.agents[digest] = true
	return true
}

// receiveAgent takes a line with a size and so many bytes of gzip.
func receiveAgent(in *bufio.Reader, digest string) error {
	line, err := in.ReadString('\n')
	if err != nil {
		return err
	}
	size, err := strconv.ParseInt(strings.TrimSpace(line), 10, 63)
	if err != nil {
		return err
	}
	wire := io.LimitReader(in, size)
	z, err := gzip.NewReader(wire)
	if err != nil {
		return err
	}
	h := sha256.New()
	if _, err := io.Copy(h, z); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, wire); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != digest {
		return fmt.Errorf("its digest is %s", got)
	}
	return nil
}

// leaveAgents puts the agents of this boot on the new disk, so that the installed system needs none.
func (m *Machine) leaveAgents(bt *boot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.installed().Agents = maps.Clone(bt.agents)
}
