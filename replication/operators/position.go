package operators

import (
	"slices"
	"strconv"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

// maxResolved bounds what one update may touch: nested $[] multiply.
const maxResolved = 1 << 20

// identifier is the x of $[x], "" for $[].
func identifier(component string) (string, bool) {
	if strings.HasPrefix(component, "$[") && strings.HasSuffix(component, "]") {
		return component[2 : len(component)-1], true
	}
	return "", false
}

func isDynamic(path []string) bool {
	return slices.ContainsFunc(path, func(c string) bool {
		_, filtered := identifier(c)
		return filtered || c == "$"
	})
}

// checkUpdatePath is what the server asks of a path in an update, before it sees a document.
func checkUpdatePath(dotted string, path []string) error {
	if dotted == "" {
		return bsonval.Errorf(bsonval.EmptyFieldName, "An empty update path is not valid.")
	}
	positional := 0
	for i, c := range path {
		_, filtered := identifier(c)
		switch {
		case c == "":
			return bsonval.Errorf(bsonval.EmptyFieldName, "The update path '%s' contains an empty field name, which is not allowed.", dotted)
		case filtered && i == 0:
			return refuse("Cannot have array filter identifier (i.e. '$[<id>]') element in the first position in path '%s'", dotted)
		case c == "$" && i == 0:
			return refuse("Cannot have positional (i.e. '$') element in the first position in path '%s'", dotted)
		case c == "$":
			positional++
		case !filtered && c[0] == '$' && (i == 0 || c != "$id" && c != "$ref" && c != "$db"):
			return bsonval.Errorf(bsonval.DollarPrefixedField, "The dollar ($) prefixed field '%s' in '%s' is not allowed in the context of an update's replacement document. Consider using an aggregation pipeline with $replaceWith.", c, dotted)
		}
	}
	if positional > 1 {
		return refuse("Too many positional (i.e. '$') elements found in path '%s'", dotted)
	}
	return nil
}

func conflict(path, at []string) error {
	return bsonval.Errorf(bsonval.ConflictingUpdates, "Updating the path '%s' would create a conflict at '%s'", strings.Join(path, "."), strings.Join(at, "."))
}

// checkConflicts refuses two modifiers on one path, or one above the other. The modifiers are sorted by path, so a path
// that lies above another is right before one of those below it.
func checkConflicts(sorted []modifier) error {
	for i := 1; i < len(sorted); i++ {
		a, b := sorted[i-1].path, sorted[i].path
		if len(a) <= len(b) && slices.Equal(a, b[:len(a)]) {
			return conflict(b, a)
		}
	}
	return nil
}

// checkMixed refuses array filters and plain names side by side below one path: a.$[x] with a.0.
func checkMixed(modifiers []modifier) error {
	kinds := map[string]bool{}
	for _, m := range modifiers {
		for i, c := range m.path {
			above := strings.Join(m.path[:i], ".")
			_, filtered := identifier(c)
			if was, seen := kinds[above]; seen && was != filtered {
				return conflict(m.path, m.path[:i])
			}
			kinds[above] = filtered
		}
	}
	return nil
}

// resolve gives the modifiers with the paths they have in this document, sorted, none in another's way.
func (u *Update) resolve(c *change) ([]modifier, error) {
	if !u.dynamic {
		return u.modifiers, nil
	}
	var out []modifier
	for _, m := range u.modifiers {
		r := resolver{u: u, in: c.in}
		if err := r.descend(c.doc, nil, m.path); err != nil {
			return nil, err
		}
		for _, path := range r.paths {
			m.path = path
			out = append(out, m)
		}
		if len(out) > maxResolved {
			return nil, refuse("the update touches more than %d array elements", maxResolved)
		}
	}
	slices.SortStableFunc(out, func(a, b modifier) int { return comparePaths(a.path, b.path) })
	return out, checkConflicts(out)
}

// resolver finds the concrete paths of a dynamic one.
type resolver struct {
	u     *Update
	in    ApplyInput
	paths [][]string
}

func (r *resolver) descend(v any, above, rest []string) error {
	if len(rest) == 0 {
		r.paths = append(r.paths, above)
		return nil
	}
	c := rest[0]
	if id, filtered := identifier(c); filtered {
		return r.elements(v, id, above, rest[1:])
	}
	if c == "$" {
		i, ok := r.in.Positions.Index()
		if !ok {
			return refuse("The positional operator did not find the match needed from the query.")
		}
		c = strconv.Itoa(i)
	}
	return r.descend(bsonval.Get(bson.D{{Key: "v", Value: v}}, []string{"v", c}), extend(above, c), rest[1:])
}

func extend(path []string, c string) []string {
	return append(slices.Clip(path), c)
}

func (r *resolver) elements(v any, id string, above, rest []string) error {
	if _, missing := v.(bsonval.Missing); missing {
		return refuse("The path '%s' must exist in the document in order to apply array updates.", strings.Join(above, "."))
	}
	a, ok := v.(bson.A)
	if !ok {
		return refuse("Cannot apply array updates to non-array element %s of type %s", strings.Join(above, "."), bsonval.TypeName(v))
	}
	for i, e := range a {
		if len(r.paths) > maxResolved {
			return nil // resolve refuses
		}
		if id != "" {
			run := &evaluation{vars: Variables{Now: r.in.Now}}
			met := r.u.filters[id].match(run, bson.D{{Key: id, Value: e}})
			if run.err != nil {
				return run.err
			}
			if !met {
				continue
			}
		}
		if err := r.descend(e, extend(above, strconv.Itoa(i)), rest); err != nil {
			return err
		}
	}
	return nil
}

func parseArrayFilters(list []bson.D) (map[string]node, error) {
	out := make(map[string]node, len(list))
	for _, d := range list {
		id, err := filterIdentifier(d)
		if err != nil {
			return nil, err
		}
		if _, twice := out[id]; twice {
			return nil, bsonval.Errorf(bsonval.FailedToParse, "Found multiple array filters with the same top-level field name %s", id)
		}
		if out[id], err = parseFilter(d); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// filterIdentifier is the one name that all conditions of an array filter begin with.
func filterIdentifier(d bson.D) (string, error) {
	names := map[string]bool{}
	collectNames(d, names, bsonval.MaxDepth)
	if len(names) != 1 {
		return "", bsonval.Errorf(bsonval.FailedToParse, "Error parsing array filter :: caused by :: Expected a single top-level field name, found %d", len(names))
	}
	for name := range names {
		if !validIdentifier(name) {
			return "", refuse("Error parsing array filter :: caused by :: The top-level field name must be an alphanumeric string beginning with a lowercase letter, found '%s'", name)
		}
		return name, nil
	}
	return "", nil // not reached: there is one
}

func collectNames(d bson.D, names map[string]bool, depth int) {
	for _, e := range d {
		if !strings.HasPrefix(e.Key, "$") {
			name, _, _ := strings.Cut(e.Key, ".")
			names[name] = true
			continue
		}
		list, _ := e.Value.(bson.A)
		for _, v := range list {
			if inner, ok := v.(bson.D); ok && depth > 0 {
				collectNames(inner, names, depth-1)
			}
		}
	}
}

func validIdentifier(name string) bool {
	for i, c := range []byte(name) {
		lower, other := c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !lower && (i == 0 || !other) {
			return false
		}
	}
	return name != ""
}

// checkIdentifiers holds that every $[x] has its filter and every filter its $[x].
func checkIdentifiers(modifiers []modifier, filters map[string]node) error {
	used := map[string]bool{}
	for _, m := range modifiers {
		for _, c := range m.path {
			id, filtered := identifier(c)
			if !filtered || id == "" {
				continue
			}
			if filters[id] == nil {
				return refuse("No array filter found for identifier '%s' in path '%s'", id, strings.Join(m.path, "."))
			}
			used[id] = true
		}
	}
	for id := range filters {
		if !used[id] {
			return bsonval.Errorf(bsonval.FailedToParse, "The array filter for identifier '%s' was not used in the update", id)
		}
	}
	return nil
}
