package cli

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"popfleet/provision/lifecycle"
	"popfleet/provision/stack"
)

// progress tells a person what each node does now, what it waits for and since when. On a terminal it keeps one line
// per node below what was said; elsewhere it prints a line when something changes, and again when a wait grows long.
type progress struct {
	out   *printer
	live  bool
	start time.Time

	mu    sync.Mutex
	order []string
	lines map[string]*line
	drawn int
	done  chan struct{}
	ended sync.WaitGroup
}

// line is what one node does now.
type line struct {
	phase, text string
	since       time.Time
	done, total int64
	spoken      time.Time // when it was last printed, without a terminal
	final       bool
}

const (
	redrawEvery = 500 * time.Millisecond
	remindEvery = 30 * time.Second
)

func newProgress(out *printer, terminal bool) *progress {
	p := &progress{out: out, live: terminal && !out.json, start: time.Now(), lines: map[string]*line{}, done: make(chan struct{})}
	p.ended.Go(p.tick)
	return p
}

// stop ends the display; the last lines stay.
func (p *progress) stop() {
	p.mu.Lock()
	select {
	case <-p.done:
	default:
		close(p.done)
	}
	p.mu.Unlock()
	p.ended.Wait()
}

func (p *progress) tick() {
	t := time.NewTicker(redrawEvery)
	defer t.Stop()
	for {
		select {
		case <-p.done:
			p.mu.Lock()
			p.draw()
			p.drawn = 0
			p.mu.Unlock()
			return
		case <-t.C:
			p.mu.Lock()
			p.draw()
			p.remind()
			p.mu.Unlock()
		}
	}
}

// object hears of the provider's objects.
func (p *progress) object(e stack.Event) {
	p.out.event("object", e.Node, map[string]any{"key": e.Key, "phase": e.Phase, "waiting": e.Waiting, "error": text(e.Err)})
	name := e.Node
	if name == "" {
		name = "provider"
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	what := strings.TrimSpace(e.Key + " " + e.Phase)
	if e.Err != nil {
		p.speak(name, what, e.Err.Error())
		return
	}
	p.set(name, "objects", strings.TrimSpace(what+" "+e.Waiting), time.Now())
	p.line(name).final = e.Phase == "done"
}

// node hears of one node's life.
func (p *progress) node(e lifecycle.Event) {
	p.out.event("node", e.Node, e)
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.line(e.Node)
	switch e.Kind {
	case lifecycle.EventWarning:
		p.speak(e.Node, p.out.paint(yellow, "note"), e.Text)
	case lifecycle.EventLog:
		return // it is in .fleet/log.jsonl and with the error, should there be one
	case lifecycle.EventProgress:
		l.done, l.total = e.Done, e.Total
		if e.Text != "" {
			l.text = e.Text
		}
	case lifecycle.EventEnd:
		p.speak(e.Node, string(e.Op), strings.TrimSpace(e.Text+" done in "+seconds(time.Since(e.Since))))
	case lifecycle.EventDone:
		p.set(e.Node, string(e.Stage), e.Text, e.Time)
		l.final = true
	case lifecycle.EventFailed:
		p.set(e.Node, "failed", firstLine(e.Text), e.Time)
		l.final = true
	default:
		phase := string(e.Op)
		if phase == "" {
			phase = string(e.Stage)
		}
		since := e.Since
		if since.IsZero() {
			since = e.Time
		}
		p.set(e.Node, phase, e.Text, since)
	}
}

// tell prints a line that stays, about something that is no node.
func (p *progress) tell(name, phase, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.speak(name, phase, text)
}

func (p *progress) line(name string) *line {
	l := p.lines[name]
	if l == nil {
		l = &line{since: time.Now()}
		p.lines[name] = l
		p.order = append(p.order, name)
	}
	return l
}

func (p *progress) set(name, phase, text string, since time.Time) {
	l := p.line(name)
	changed := l.phase != phase || l.text != text
	l.phase, l.text, l.since, l.done, l.total, l.final = phase, text, since, 0, 0, false
	if changed && !p.live {
		p.speak(name, phase, text)
		l.spoken = time.Now()
	}
}

// speak prints a line that stays.
func (p *progress) speak(name, phase, text string) {
	p.erase()
	p.out.say("[%5.0fs] %-8s %-13s %s", time.Since(p.start).Seconds(), name, phase, text)
	p.draw()
}

// remind repeats a wait that goes on, for those who read a log file.
func (p *progress) remind() {
	if p.live {
		return
	}
	for _, name := range p.order {
		l := p.lines[name]
		if l.final || l.spoken.IsZero() || time.Since(l.spoken) < remindEvery {
			continue
		}
		l.spoken = time.Now()
		p.out.say("[%5.0fs] %-8s %-13s %s", time.Since(p.start).Seconds(), name, l.phase, l.describe())
	}
}

func (p *progress) erase() {
	if p.live && p.drawn > 0 {
		fmt.Fprintf(p.out.err, "\x1b[%dA\x1b[J", p.drawn)
		p.drawn = 0
	}
}

func (p *progress) draw() {
	if !p.live {
		return
	}
	p.erase()
	for _, name := range p.order {
		l := p.lines[name]
		p.out.say("  %-8s %-13s %s", name, l.phase, l.describe())
		p.drawn++
	}
}

func (l *line) describe() string {
	s := l.text
	if l.total > 0 {
		s = fmt.Sprintf("%s %d %%", s, l.done*100/l.total)
	}
	if !l.final {
		s += ", " + seconds(time.Since(l.since))
	}
	return strings.TrimPrefix(strings.TrimSpace(s), ", ")
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.0f s", d.Seconds()) }

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
