package board

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"popfleet/internal/strictjson"
)

// Bounds of what is accepted, in characters where not said otherwise.
const (
	MaxTitle      = 200
	MaxText       = 5000
	MaxAuthor     = 50
	MaxInputBytes = 32 << 10 // the longest body in four-byte characters, escaped in part, and the rest
	Anonymous     = "anonymous"
)

// Problem says what is wrong with one field.
type Problem struct {
	Field string `json:"field"`
	Text  string `json:"text"`
}

// Problems is every reason why an input was refused.
type Problems []Problem

func (p Problems) Error() string {
	var all []string
	for _, one := range p {
		all = append(all, one.Field+": "+one.Text)
	}
	return strings.Join(all, "; ")
}

// ErrSyntax: the input is not the JSON that was expected, or too large.
var ErrSyntax = errors.New("not the JSON expected")

// Read decodes one bounded JSON value into v; unknown keys are refused.
func Read(r io.Reader, v any) error {
	data, err := io.ReadAll(io.LimitReader(r, MaxInputBytes+1))
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrSyntax, err)
	case len(data) > MaxInputBytes:
		return fmt.Errorf("%w: larger than %d bytes", ErrSyntax, MaxInputBytes)
	}
	if err := strictjson.Decode(data, v); err != nil {
		return fmt.Errorf("%w: %w", ErrSyntax, err)
	}
	return nil
}

// ThreadInput is a thread as a client sends it.
type ThreadInput struct {
	Title  string `json:"title"`
	Author string `json:"author"`
}

// Thread makes a thread of the input, written at node at the time now.
func (in ThreadInput) Thread(node, id string, now time.Time) (Thread, error) {
	var p Problems
	title := p.text("title", in.Title, MaxTitle, false)
	author := p.author(in.Author)
	if p != nil {
		return Thread{}, p
	}
	now = stamp(now)
	return Thread{ID: id, Title: title, Author: author, Node: node, CreatedAt: now, ActiveAt: now, Revision: 1}, nil
}

// CommentInput is a comment as a client sends it.
type CommentInput struct {
	Author string `json:"author"`
	Text   string `json:"text"`
}

// Comment makes a comment in a thread of the input.
func (in CommentInput) Comment(thread, node, id string, now time.Time) (Comment, error) {
	var p Problems
	text := p.text("text", in.Text, MaxText, true)
	author := p.author(in.Author)
	if p != nil {
		return Comment{}, p
	}
	return Comment{ID: id, Thread: thread, Author: author, Text: text, Node: node, CreatedAt: stamp(now), Revision: 1}, nil
}

// VoteInput is one vote.
type VoteInput struct {
	Delta int `json:"delta"`
}

// Check refuses all but one step up or down.
func (in VoteInput) Check() error {
	if in.Delta != 1 && in.Delta != -1 {
		return Problems{{"delta", "expected 1 or -1"}}
	}
	return nil
}

// HiddenInput is a moderator's word. It is a pointer so that an absent value is not a decision.
type HiddenInput struct {
	Hidden *bool `json:"hidden"`
}

// Check refuses an input without a decision.
func (in HiddenInput) Check() error {
	if in.Hidden == nil {
		return Problems{{"hidden", "expected true or false"}}
	}
	return nil
}

// stamp cuts to what BSON keeps, so that what is answered at once and what is read later are equal.
func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

func (p *Problems) author(s string) string {
	if strings.TrimSpace(s) == "" {
		return Anonymous
	}
	return p.text("author", s, MaxAuthor, false)
}

// text checks and trims one field. Markup is not refused: it is text, and the page shows it as text.
func (p *Problems) text(field, s string, limit int, lines bool) string {
	s = strings.TrimSpace(strings.ReplaceAll(s, "\r\n", "\n"))
	add := func(format string, a ...any) { *p = append(*p, Problem{field, fmt.Sprintf(format, a...)}) }
	n := utf8.RuneCountInString(s)
	switch {
	case !utf8.ValidString(s):
		add("expected UTF-8")
	case n == 0 || !visible(s):
		add("expected some text")
	case n > limit:
		add("%d characters; at most %d fit", n, limit)
	case strings.ContainsFunc(s, func(r rune) bool { return forbidden(r, lines) }):
		add("has control characters")
	}
	return s
}

func visible(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return unicode.IsGraphic(r) && !unicode.IsSpace(r) })
}

// forbidden are control characters and those that turn the direction of the text after them, with which one person's
// comment could rearrange what another wrote (Unicode TR36, "bidirectional text spoofing").
func forbidden(r rune, lines bool) bool {
	switch {
	case r == '\n' || r == '\t':
		return !lines
	case r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x2028, r == 0x2029:
		return true
	}
	return unicode.IsControl(r)
}
