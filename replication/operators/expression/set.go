package expression

import (
	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

func sets(name string) (operator, bool) {
	switch name {
	case "$setUnion":
		return operator{0, -1, setUnion}, true
	case "$setIntersection":
		return operator{0, -1, setIntersection}, true
	case "$setDifference":
		return operator{2, 2, setDifference}, true
	case "$setEquals":
		return operator{2, -1, setEquals}, true
	case "$setIsSubset":
		return operator{2, 2, setIsSubset}, true
	case "$anyElementTrue":
		return operator{1, 1, elementTrue(true)}, true
	case "$allElementsTrue":
		return operator{1, 1, elementTrue(false)}, true
	}
	return operator{}, false
}

// members are the distinct elements of an array, in the order of their first appearance (the server leaves it open).
type members struct {
	order bson.A
	has   map[string]bool
}

func membersOf(a bson.A) members {
	m := members{order: bson.A{}, has: map[string]bool{}}
	for _, v := range a {
		m.add(v)
	}
	return m
}

func (m *members) add(v any) {
	key := string(bsonval.Canonical(v))
	if !m.has[key] {
		m.has[key] = true
		m.order = append(m.order, v)
	}
}

func (m members) contains(v any) bool { return m.has[string(bsonval.Canonical(v))] }

func (m members) within(other members) bool {
	for _, v := range m.order {
		if !other.contains(v) {
			return false
		}
	}
	return true
}

func allMembers(name string, args []any) ([]members, error) {
	out := make([]members, len(args))
	for i, v := range args {
		a, ok := v.(bson.A)
		if !ok {
			return nil, fail(17041, "All operands of %s must be arrays. One argument is of type: %s", name, bsonval.TypeName(v))
		}
		out[i] = membersOf(a)
	}
	return out, nil
}

func setUnion(name string, args []any) (any, error) {
	if anyNullish(args) {
		return nil, nil
	}
	all, err := allMembers(name, args)
	union := membersOf(nil)
	for _, m := range all {
		for _, v := range m.order {
			union.add(v)
		}
	}
	return union.order, err
}

func setIntersection(name string, args []any) (any, error) {
	if anyNullish(args) {
		return nil, nil
	}
	all, err := allMembers(name, args)
	if err != nil || len(all) == 0 {
		return bson.A{}, err
	}
	out := bson.A{}
	for _, v := range all[0].order {
		everywhere := true
		for _, m := range all[1:] {
			everywhere = everywhere && m.contains(v)
		}
		if everywhere {
			out = append(out, v)
		}
	}
	return out, nil
}

func setDifference(name string, args []any) (any, error) {
	if anyNullish(args) {
		return nil, nil
	}
	all, err := allMembers(name, args)
	if err != nil {
		return nil, err
	}
	out := bson.A{}
	for _, v := range all[0].order {
		if !all[1].contains(v) {
			out = append(out, v)
		}
	}
	return out, nil
}

func setEquals(name string, args []any) (any, error) {
	all, err := allMembers(name, args)
	if err != nil {
		return nil, err
	}
	for _, m := range all[1:] {
		if !m.within(all[0]) || !all[0].within(m) {
			return false, nil
		}
	}
	return true, nil
}

func setIsSubset(name string, args []any) (any, error) {
	all, err := allMembers(name, args)
	if err != nil {
		return nil, err
	}
	return all[0].within(all[1]), nil
}

func elementTrue(until bool) func(string, []any) (any, error) {
	return func(name string, args []any) (any, error) {
		a, ok := args[0].(bson.A)
		if !ok {
			return nil, fail(17041, "%s's argument must be an array, but is %s", name, bsonval.TypeName(args[0]))
		}
		for _, v := range a {
			if Truthy(v) == until {
				return until, nil
			}
		}
		return !until, nil
	}
}
