package statusview

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

type color string

// Colours by meaning.
const (
	good color = "\x1b[32m"
	warn color = "\x1b[33m"
	bad  color = "\x1b[31m"
	head color = "\x1b[1m"

	reset = "\x1b[0m"
)

func (c color) paint(text string, use bool) string {
	if c == "" || !use {
		return text
	}
	return string(c) + text + reset
}

// cell is a text and its colour; what is drawn is clean.
type cell struct {
	text  string
	color color
}

func plain(text string) cell { return cell{text: text} }

func row(texts ...string) (cells []cell) {
	for _, t := range texts {
		cells = append(cells, cell{t, head})
	}
	return cells
}

// table is aligned text. When it is wider than the terminal, the elastic column (0: the last one) gives way.
type table struct {
	head    []cell
	rows    [][]cell
	elastic int
}

func (t *table) add(cells ...cell) { t.rows = append(t.rows, cells) }

const gap = "  "

// leastElastic is what is left of a column that gives way.
const leastElastic = 8

func (t table) text(o Options) string {
	if len(t.rows) == 0 {
		return ""
	}
	lines := append([][]cell{t.head}, t.rows...)
	widths := make([]int, len(t.head))
	for _, cells := range lines {
		for i := range cells {
			cells[i].text = clean(cells[i].text)
			widths[i] = max(widths[i], columns(cells[i].text))
		}
	}
	t.shrink(widths, o.Width)
	var b strings.Builder
	for _, cells := range lines {
		b.WriteString(line(cells, widths, o.Color))
	}
	return b.String()
}

func (t table) shrink(widths []int, limit int) {
	if limit <= 0 {
		return
	}
	total := len(gap) * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	at := t.elastic
	if at == 0 {
		at = len(widths) - 1
	}
	if over := total - limit; over > 0 && widths[at] > leastElastic {
		widths[at] = max(widths[at]-over, leastElastic)
	}
}

func line(cells []cell, widths []int, color bool) string {
	var b strings.Builder
	spaces := 0
	for i, c := range cells {
		text := clip(c.text, widths[i])
		if text != "" {
			b.WriteString(strings.Repeat(" ", spaces))
			spaces = 0
			b.WriteString(c.color.paint(text, color))
		}
		spaces += widths[i] - columns(text) + len(gap)
	}
	return b.String() + "\n"
}

// columns counts characters: names and words of ours are one column each.
func columns(s string) int { return utf8.RuneCountInString(s) }

func clip(s string, width int) string {
	if columns(s) <= width {
		return s
	}
	return string([]rune(s)[:max(width-1, 0)]) + "…"
}

// maxText bounds what one text of a node may fill of the screen.
const maxText = 400

// clean leaves what can be printed: a node's words must not move the cursor, colour or retitle anything.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r == utf8.RuneError || !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, s)
	return clip(s, maxText)
}

// wrap breaks text at spaces, each line after the first indented.
func wrap(text string, width int, indent string) string {
	if width <= len(indent)+20 {
		return text
	}
	var lines []string
	now := ""
	for _, word := range strings.Fields(text) {
		if now != "" && columns(now)+1+columns(word) > width {
			lines = append(lines, now)
			now = indent + word
			continue
		}
		if now != "" {
			now += " "
		}
		now += word
	}
	return strings.Join(append(lines, now), "\n")
}
