package operators

import (
	"regexp"
	"regexp/syntax"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

// maxPattern is PCRE's limit in the server, in bytes.
const maxPattern = 32764

// pattern is $regex. Go's engine takes time linear in the text, so no filter from outside can stall us; what it lacks
// against the server's PCRE (look-around, back-references, possessive quantifiers) is refused, not misread.
type pattern struct {
	source bson.Regex
	re     *regexp.Regexp
}

func (p pattern) met(_ *evaluation, v any) bool {
	switch x := v.(type) {
	case string:
		return p.re.MatchString(x)
	case bson.Symbol:
		return p.re.MatchString(string(x))
	case bson.Regex:
		return x == p.source
	}
	return false
}

func newPattern(source, options string) (pattern, error) {
	if len(source) > maxPattern {
		return pattern{}, bsonval.Errorf(bsonval.RegexInvalid, "Regular expression is invalid: pattern too long")
	}
	if strings.ContainsRune(source+options, 0) {
		return pattern{}, refuse("Regular expression cannot contain an embedded null byte")
	}
	flags := syntax.Perl
	for _, o := range options {
		switch o {
		case 'i':
			flags |= syntax.FoldCase
		case 'm':
			flags &^= syntax.OneLine
		case 's':
			flags |= syntax.DotNL
		case 'x':
			source = withoutComments(source)
		case 'u':
		default:
			return pattern{}, bsonval.Errorf(51108, "invalid flag in regex options: %c", o)
		}
	}
	re, err := compilePattern(source, flags)
	return pattern{source: bson.Regex{Pattern: source, Options: options}, re: re}, err
}

func compilePattern(source string, flags syntax.Flags) (*regexp.Regexp, error) {
	tree, err := syntax.Parse(source, flags)
	if err == nil {
		perlDollar(tree)
		re, err := regexp.Compile(tree.String())
		if err == nil {
			return re, nil
		}
	}
	return nil, bsonval.Errorf(bsonval.RegexInvalid, "Regular expression is invalid or uses what is not supported here (look-around, back-references): %v", err)
}

// perlDollar makes $ without the option m match before a last newline too, as in PCRE.
func perlDollar(re *syntax.Regexp) {
	for i, sub := range re.Sub {
		if sub.Op == syntax.OpEndText && sub.Flags&syntax.WasDollar != 0 {
			re.Sub[i] = beforeLastNewline(sub)
			continue
		}
		perlDollar(sub)
	}
}

func beforeLastNewline(end *syntax.Regexp) *syntax.Regexp {
	newline := &syntax.Regexp{Op: syntax.OpLiteral, Rune: []rune{'\n'}}
	maybe := &syntax.Regexp{Op: syntax.OpQuest, Sub: []*syntax.Regexp{newline}}
	return &syntax.Regexp{Op: syntax.OpConcat, Sub: []*syntax.Regexp{maybe, end}}
}

// withoutComments is option x: white space and comments outside of classes do not count.
func withoutComments(source string) string {
	var out strings.Builder
	class, comment, escaped := false, false, false
	for _, c := range source {
		switch {
		case comment:
			comment = c != '\n'
			continue
		case escaped:
			escaped = false
		case c == '\\':
			escaped = true
		case c == '[':
			class = true
		case c == ']':
			class = false
		case !class && c == '#':
			comment = true
			continue
		case !class && strings.ContainsRune(" \t\n\r\f\v", c):
			continue
		}
		out.WriteRune(c)
	}
	return out.String()
}

func regexField(path []string, source, options string) (node, error) {
	p, err := newPattern(source, options)
	p.source = bson.Regex{Pattern: source, Options: options}
	return field{path: path, into: true, test: p}, err
}

func parseRegex(path []string, v any, siblings bson.D) (node, error) {
	options, given := bsonval.Field(siblings, "$options").(string)
	if !given && bsonval.Find(siblings, "$options") >= 0 {
		return nil, refuse("$options has to be a string")
	}
	switch x := v.(type) {
	case string:
		return regexField(path, x, options)
	case bson.Regex:
		if given && x.Options != "" {
			return nil, bsonval.Errorf(51075, "options set in both $regex and $options")
		}
		return regexField(path, x.Pattern, options+x.Options)
	}
	return nil, refuse("$regex has to be a string")
}
