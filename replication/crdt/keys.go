package crdt

import (
	"fmt"
	"strings"
)

// Field is the name of the hidden field that carries a document's state.
const Field = "_r"

// Keys of the hidden field. A version vector's entries are the origins' ids in decimal, a path's stamp is under the
// path itself, which begins with a slash.
const (
	keyLocal    = "l"
	keyCausal   = "g"
	keyCreated  = "h"
	keyRetry    = "t"
	keyGaps     = "o" // fields of a document that its deciding write had and that are gone: place and name
	keyAbsent   = "u" // stamps of what was unset
	keyClash    = "x"
	keyTallies  = "c"
	keyExtremes = "m"
	keyElements = "a"
	keyHidden   = "e" // elements that are there but don't show
)

var escape = strings.NewReplacer("~", "~0", ".", "~1", "$", "~2", "/", "~3")
var unescape = strings.NewReplacer("~0", "~", "~1", ".", "~2", "$", "~3", "/")

// below is the key of a path one step further: a slash and the name, in which ~ . $ / are ~0 ~1 ~2 ~3, so that it is a
// field name every backend takes.
func below(path, name string) string {
	if strings.ContainsAny(name, "~.$/") {
		name = escape.Replace(name)
	}
	return path + "/" + name
}

// gapsOf is the key of a document's gaps; the whole document's path is empty, which not every backend takes.
func gapsOf(path string) string {
	if path == "" {
		return "~"
	}
	return path
}

// hiddenBelow is the key of a field below something that is no document: what is left of it when its parent became
// something else. The mark tells it from an array's element.
func hiddenBelow(path, name string) string { return path + "/" + hiddenMark + escape.Replace(name) }

const hiddenMark = "~4"

// steps cuts a path's key into names as they are written in it.
func steps(key string) ([]string, error) {
	if key == "" || key[0] != '/' {
		return nil, fmt.Errorf("path %q does not begin with a slash", key)
	}
	return strings.Split(key[1:], "/"), nil
}

// nameOf is the name that a step stands for.
func nameOf(step string) (name string, hidden bool) {
	step, hidden = strings.CutPrefix(step, hiddenMark)
	if strings.Contains(step, "~") {
		step = unescape.Replace(step)
	}
	return step, hidden
}

// PathKey is the key under which the hidden field keeps the stamp of a path.
func PathKey(path []string) string {
	key := ""
	for _, p := range path {
		key = below(key, p)
	}
	return key
}
