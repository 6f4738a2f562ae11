package board

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)

func TestCommentInput(t *testing.T) {
	for _, c := range []struct {
		name, author, text string
		want               string // of Problems; empty: accepted
	}{
		{"plain", "ann", "hello", ""},
		{"two lines and a tab", "ann", "a\r\n\tb", ""},
		{"markup is text", "<b>", "<script>alert(1)</script>", ""},
		{"joined emoji", "ann", "👩‍👩‍👧", ""},
		{"right to left", "ann", "שלום עולם", ""},
		{"no name", "  ", "hello", ""},
		{"as long as fits", strings.Repeat("é", MaxAuthor), strings.Repeat("é", MaxText), ""},
		{"empty", "", " \n ", "text: expected some text"},
		{"nothing visible", "", "\u200b\u200b", "text: expected some text"},
		{"too long", "", strings.Repeat("é", MaxText+1), "text: 5001 characters; at most 5000 fit"},
		{"both wrong", "a\nb", "", "text: expected some text; author: has control characters"},
		{"direction override", "", "abc\u202edef", "text: has control characters"},
		{"null", "", "a\x00b", "text: has control characters"},
		{"not UTF-8", "", "a\xffb", "text: expected UTF-8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := CommentInput{Author: c.author, Text: c.text}.Comment("t", "fsn-1", "id", noon)
			if c.want != "" {
				var p Problems
				if !errors.As(err, &p) || p.Error() != c.want {
					t.Fatalf("got %v, want %q", err, c.want)
				}
				return
			}
			if err != nil || got.Revision != 1 || got.Node != "fsn-1" || got.Author == "" || got.CreatedAt.Nanosecond()%1e6 != 0 {
				t.Fatalf("got %+v, %v", got, err)
			}
		})
	}
}

func TestThreadTitleIsOneLine(t *testing.T) {
	if _, err := (ThreadInput{Title: "a\nb"}).Thread("n", "id", noon); err == nil {
		t.Fatal("a title of two lines was accepted")
	}
	got, err := (ThreadInput{Title: "  a  "}).Thread("n", "id", noon)
	if err != nil || got.Title != "a" || got.Author != Anonymous {
		t.Fatalf("got %+v, %v", got, err)
	}
}

func TestHiddenShowsNoWords(t *testing.T) {
	c := Comment{ID: "x", Author: "ann", Text: "rude", Hidden: true, Votes: 3}.Public()
	if c.Text != "" || c.Author != "" || c.Votes != 3 {
		t.Fatalf("public view of a hidden comment: %+v", c)
	}
	if th := (Thread{Title: "rude", Author: "ann", Hidden: true}).Public(); th.Title != "" || th.Author != "" {
		t.Fatalf("public view of a hidden thread: %+v", th)
	}
}

func TestIDs(t *testing.T) {
	if a, b := NewID("p", ""), NewID("p", ""); a == b || !ValidID(a) || !ValidID(b) {
		t.Fatalf("%q and %q: expected two valid names", a, b)
	}
	a, again, elsewhere := NewID("p", "key"), NewID("p", "key"), NewID("q", "key")
	if a != again || a == elsewhere || !ValidID(a) {
		t.Fatalf("names of a key: %q, %q, elsewhere %q", a, again, elsewhere)
	}
	for _, bad := range []string{"", "abc", strings.Repeat("A", 26), strings.Repeat("a", 27), strings.Repeat("1", 26), strings.Repeat("é", 13)} {
		if ValidID(bad) {
			t.Errorf("%q passed for a name", bad)
		}
	}
	for key, ok := range map[string]bool{"": true, "k-1": true, "a b": false, "ü": false, strings.Repeat("k", MaxKey+1): false} {
		if err := CheckKey(key); (err == nil) != ok {
			t.Errorf("key %q: %v", key, err)
		}
	}
}

func TestParseLimit(t *testing.T) {
	for s, want := range map[string]int{"": DefaultPage, "1": 1, "200": MaxPage, "0": 0, "201": 0, "x": 0, "-1": 0} {
		got, err := ParseLimit(s)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v", s, got, err)
		}
	}
}

func FuzzCursor(f *testing.F) {
	f.Add(Cursor{At: noon.Truncate(time.Millisecond), ID: NewID("p", "k")}.String())
	f.Add("")
	f.Add("-1-aaaaaaaaaaaaaaaaaaaaaaaaaa")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCursor(s)
		if err != nil {
			return
		}
		if c.String() != s {
			t.Fatalf("%q came back as %q", s, c.String())
		}
	})
}

func FuzzComment(f *testing.F) {
	f.Add([]byte(`{"author":"ann","text":"hello"}`))
	f.Add([]byte(`{"text":"a\u202eb","author":"\u0000"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var in CommentInput
		if err := Read(strings.NewReader(string(data)), &in); err != nil {
			if !errors.Is(err, ErrSyntax) {
				t.Fatalf("unexpected kind of error: %v", err)
			}
			return
		}
		c, err := in.Comment("t", "n", "id", noon)
		if err != nil {
			return
		}
		if !utf8.ValidString(c.Text+c.Author) || utf8.RuneCountInString(c.Text) > MaxText || strings.ContainsAny(c.Text, "\x00\u202e\u2028") {
			t.Fatalf("accepted %q", c.Text)
		}
		if _, err := json.Marshal(c); err != nil {
			t.Fatal(err)
		}
	})
}
