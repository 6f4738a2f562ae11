package hetznercloud

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Labels that make every object of ours findable. They are written with the create, so a create whose reply was lost is
// found again. The prefix hetzner.cloud/ is reserved by the provider.
const (
	LabelFleet = "popfleet/fleet"
	LabelNode  = "popfleet/node" // servers only
	LabelKey   = "popfleet/key"  // the object's name inside its fleet, unique per kind
)

// labelValue is the provider's syntax: at most 63 characters, alphanumeric at both ends.
var labelValue = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?$`)

// Labels are the labels of one object of a fleet; node may be empty.
func Labels(fleet, node, key string) map[string]string {
	l := map[string]string{LabelFleet: fleet, LabelKey: key}
	if node != "" {
		l[LabelNode] = node
	}
	return l
}

// CheckLabels says what the provider would refuse.
func CheckLabels(labels map[string]string) error {
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if v := labels[k]; !labelValue.MatchString(v) {
			return fmt.Errorf("label %s=%q: expected 1 to 63 letters, digits, '.', '_' or '-', with a letter or digit at both ends", k, v)
		}
	}
	return nil
}

// selector picks the object that carries all of labels.
func selector(labels map[string]string) string {
	terms := make([]string, 0, len(labels))
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		terms = append(terms, k+"="+labels[k])
	}
	return strings.Join(terms, ",")
}

// identity is the part of labels that makes an object ours.
func identity(labels map[string]string) map[string]string {
	return map[string]string{LabelFleet: labels[LabelFleet], LabelKey: labels[LabelKey]}
}

// carries says whether have includes all of want.
func carries(have, want map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}
