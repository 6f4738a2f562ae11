package archtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is the tree's top, seen from this package.
const root = "../.."

// A person who follows a runbook at night types what it says: a verb that does not exist costs minutes and trust.
func TestVerbsInDocsExist(t *testing.T) {
	verbs := map[string][]string{"fleet": verbsOf(t, "fleet/cli"), "fleet-lab": verbsOf(t, "lab/cli")}
	found := 0
	for _, doc := range append([]string{"README.md"}, markdownBelow(t, "docs/runbooks")...) {
		for _, m := range mentions(code(read(t, doc))) {
			found++
			if !slices.Contains(verbs[m.program], m.verb) {
				t.Errorf("%s mentions `%s %s`; its verbs are %s", doc, m.program, m.verb, strings.Join(verbs[m.program], ", "))
			}
		}
	}
	if found < 50 {
		t.Errorf("%d mentions found: the rule would hold over nothing", found)
	}
}

func TestLinksInDocsResolve(t *testing.T) {
	docs := append([]string{"README.md", "ARCHITECTURE.md"}, markdownBelow(t, "docs")...)
	for _, doc := range docs {
		for _, target := range links(read(t, doc)) {
			file, anchor, _ := strings.Cut(target, "#")
			to := filepath.Join(filepath.Dir(doc), file)
			if file == "" {
				to = doc
			}
			if _, err := os.Stat(filepath.Join(root, to)); err != nil {
				t.Errorf("%s links to %s, which does not exist", doc, target)
				continue
			}
			if anchor != "" && !slices.Contains(anchors(read(t, to)), anchor) {
				t.Errorf("%s links to %s; that file has the headings %s", doc, target, strings.Join(anchors(read(t, to)), ", "))
			}
		}
	}
}

// maxRunbookLines is one page: more is not read when it matters.
const maxRunbookLines = 40

func TestRunbooksAreOnePageAndIndexed(t *testing.T) {
	const index = "docs/runbooks/README.md"
	linked := links(read(t, index))
	for _, doc := range markdownBelow(t, "docs/runbooks") {
		if n := strings.Count(read(t, doc), "\n"); n > maxRunbookLines {
			t.Errorf("%s has %d lines; a runbook is one page, at most %d", doc, n, maxRunbookLines)
		}
		if doc != index && !slices.Contains(linked, filepath.Base(doc)) {
			t.Errorf("%s is not in the index, where people look for what they see", doc)
		}
	}
}

func TestMentions(t *testing.T) {
	text := "The fleet file, `fleet up fsn`, `FLEET_PACE=emulated fleet plan`, `fleet -C dir --json status`.\n" +
		"```\n$ fleet ssh fsn-1 df && fleet down x\n  next: fleet unlock fsn-1\nnot in the fleet file any more\n" +
		"fleet-lab fault add refuse\nfleet plan   # fleet is a word here\n```\n`fleet plan|explain`, `fleet-agent run`\n"
	var got []string
	for _, m := range mentions(code(text)) {
		got = append(got, m.program+" "+m.verb)
	}
	want := []string{"fleet ssh", "fleet down", "fleet unlock", "fleet-lab fault", "fleet plan", "fleet up", "fleet plan",
		"fleet status", "fleet plan", "fleet explain"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

var use = regexp.MustCompile(`\bUse:\s*"([a-z][a-z-]*)`)

// verbsOf reads the verbs of a command line from its sources, as text: the binary is not linked into this test.
func verbsOf(t *testing.T, room string) []string {
	t.Helper()
	verbs := []string{"help", "completion"} // cobra's own
	files, err := filepath.Glob(filepath.Join(root, room, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range use.FindAllSubmatch(text, -1) {
			verbs = append(verbs, string(m[1]))
		}
	}
	if len(verbs) < 8 {
		t.Fatalf("%s: %d verbs found in its sources", room, len(verbs))
	}
	return verbs
}

var (
	fenced = regexp.MustCompile("(?ms)^[ \t]*```[^\n]*\n(.*?)^[ \t]*```")
	span   = regexp.MustCompile("`([^`\n]+)`")
)

// code is the text of fenced blocks, then that of code spans, one a line, without shell comments.
func code(markdown string) []string {
	var lines []string
	for _, m := range fenced.FindAllStringSubmatch(markdown, -1) {
		lines = append(lines, strings.Split(m[1], "\n")...)
	}
	// In a block a backtick is part of a message; left in, it would pair with the next span's.
	for _, m := range span.FindAllStringSubmatch(fenced.ReplaceAllString(markdown, ""), -1) {
		lines = append(lines, m[1])
	}
	for i, l := range lines {
		lines[i], _, _ = strings.Cut(l, " #")
	}
	return lines
}

type mention struct{ program, verb string }

// command is a program where a command begins: at the start, after a variable, or after what ends another command or
// introduces one. "not in the fleet file" is none.
var command = regexp.MustCompile("(?:^|[`\"'|&;:$]|\\b[A-Z_]+=\\S*)\\s*(fleet|fleet-lab)((?: +-C \\S+| +--[a-z]+)*) +([a-z][a-z|-]*)")

func mentions(lines []string) (found []mention) {
	for _, l := range lines {
		for _, m := range command.FindAllStringSubmatch(l, -1) {
			for _, verb := range strings.Split(m[3], "|") {
				found = append(found, mention{m[1], verb})
			}
		}
	}
	return found
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// links are the relative ones outside of code.
func links(markdown string) (targets []string) {
	text := span.ReplaceAllString(fenced.ReplaceAllString(markdown, ""), "")
	for _, m := range link.FindAllStringSubmatch(text, -1) {
		if !strings.Contains(m[1], "://") && !strings.HasPrefix(m[1], "mailto:") {
			targets = append(targets, m[1])
		}
	}
	return targets
}

var (
	heading = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	dropped = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchors are the headings as links name them.
func anchors(markdown string) (names []string) {
	for _, m := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(markdown, ""), -1) {
		names = append(names, strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return names
}

// markdownBelow lists the Markdown files of a folder, all the way down, relative to the tree's top.
func markdownBelow(t *testing.T, folder string) (files []string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(root), folder, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".md") {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %d Markdown files, %v", folder, len(files), err)
	}
	return files
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
