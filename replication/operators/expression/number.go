package expression

import (
	"errors"
	"math"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

func comparisons(name string) (operator, bool) {
	var holds func(c int) any
	switch name {
	case "$eq":
		holds = func(c int) any { return c == 0 }
	case "$ne":
		holds = func(c int) any { return c != 0 }
	case "$gt":
		holds = func(c int) any { return c > 0 }
	case "$gte":
		holds = func(c int) any { return c >= 0 }
	case "$lt":
		holds = func(c int) any { return c < 0 }
	case "$lte":
		holds = func(c int) any { return c <= 0 }
	case "$cmp":
		holds = func(c int) any { return int32(c) }
	case "$not":
		return operator{1, 1, func(_ string, args []any) (any, error) { return !Truthy(args[0]), nil }}, true
	default:
		return operator{}, false
	}
	return operator{2, 2, func(_ string, args []any) (any, error) {
		return holds(bsonval.Compare(args[0], args[1])), nil
	}}, true
}

func arithmetic(name string) (operator, bool) {
	switch name {
	case "$add":
		return operator{0, -1, add}, true
	case "$multiply":
		return operator{0, -1, multiply}, true
	case "$subtract":
		return operator{2, 2, subtract}, true
	case "$divide":
		return operator{2, 2, quotient(bsonval.Div)}, true
	case "$mod":
		return operator{2, 2, quotient(bsonval.Rem)}, true
	case "$abs":
		return operator{1, 1, absolute}, true
	case "$ceil":
		return operator{1, 1, rounding(math.Ceil)}, true
	case "$floor":
		return operator{1, 1, rounding(math.Floor)}, true
	case "$round":
		return operator{1, 1, rounding(math.RoundToEven)}, true
	case "$trunc":
		return operator{1, 1, rounding(math.Trunc)}, true
	case "$min":
		return operator{1, -1, extreme(-1)}, true
	case "$max":
		return operator{1, -1, extreme(1)}, true
	case "$sum":
		return operator{1, -1, sum}, true
	case "$avg":
		return operator{1, -1, average}, true
	}
	return operator{}, false
}

func anyNullish(args []any) bool {
	for _, v := range args {
		if nullish(v) {
			return true
		}
	}
	return false
}

// widened is a+b or a×b, in double where 64 bits are too few, as the server does in expressions (not in $inc).
func widened(op func(a, b any) (any, error), a, b any) (any, error) {
	v, err := op(a, b)
	if errors.Is(err, bsonval.ErrOverflow) {
		return op(bsonval.ToFloat(a), bsonval.ToFloat(b))
	}
	return v, err
}

// add sums numbers; one date among them makes the sum a date, the rest milliseconds.
func add(name string, args []any) (any, error) {
	var total any = int32(0)
	date, dates := bson.DateTime(0), 0
	for _, v := range args {
		if nullish(v) {
			return nil, nil
		}
		if d, ok := v.(bson.DateTime); ok {
			date, dates = d, dates+1
			continue
		}
		sum, err := widened(bsonval.Add, total, v)
		if err != nil {
			return nil, fail(bsonval.TypeMismatch, "%s only supports numeric or date types, not %s", name, bsonval.TypeName(v))
		}
		total = sum
	}
	switch dates {
	case 0:
		return total, nil
	case 1:
		return shiftDate(date, total, 1)
	}
	return nil, fail(16612, "only one date allowed in an $add expression")
}

func shiftDate(d bson.DateTime, by any, sign int64) (any, error) {
	ms, ok := bsonval.ToInt64(roundHalfAway(by))
	sum := int64(d) + sign*ms
	if !ok || (sum > int64(d)) != (sign*ms > 0) && ms != 0 {
		return nil, fail(bsonval.Overflow, "date overflow")
	}
	return bson.DateTime(sum), nil
}

func roundHalfAway(v any) any {
	if f, ok := v.(float64); ok {
		return math.Round(f)
	}
	return v
}

func multiply(name string, args []any) (any, error) {
	if anyNullish(args) {
		return nil, nil
	}
	var total any = int32(1)
	for _, v := range args {
		product, err := widened(bsonval.Mul, total, v)
		if err != nil {
			return nil, fail(bsonval.TypeMismatch, "%s only supports numeric types, not %s", name, bsonval.TypeName(v))
		}
		total = product
	}
	return total, nil
}

func subtract(_ string, args []any) (any, error) {
	if anyNullish(args) {
		return nil, nil
	}
	a, b := args[0], args[1]
	da, aDate := a.(bson.DateTime)
	db, bDate := b.(bson.DateTime)
	switch {
	case aDate && bDate:
		return int64(da) - int64(db), nil
	case aDate && bsonval.IsNumber(b):
		return shiftDate(da, b, -1)
	}
	v, err := widened(bsonval.Sub, a, b)
	if err != nil {
		return nil, fail(bsonval.TypeMismatch, "can't $subtract %s from %s", bsonval.TypeName(b), bsonval.TypeName(a))
	}
	return v, nil
}

func quotient(op func(a, b any) (any, error)) func(string, []any) (any, error) {
	return func(name string, args []any) (any, error) {
		if anyNullish(args) {
			return nil, nil
		}
		v, err := op(args[0], args[1])
		switch {
		case errors.Is(err, bsonval.ErrZeroDivisor):
			return nil, refuseValue("can't %s by zero", name)
		case err != nil:
			return nil, fail(bsonval.TypeMismatch, "%s only supports numeric types, not %s and %s", name, bsonval.TypeName(args[0]), bsonval.TypeName(args[1]))
		}
		return v, nil
	}
}

func refuseValue(format string, args ...any) error {
	return bsonval.Errorf(bsonval.BadValue, format, args...)
}

func numberOrNull(name string, v any) error {
	if !nullish(v) && !bsonval.IsNumber(v) {
		return fail(28765, "%s only supports numeric types, not %s", name, bsonval.TypeName(v))
	}
	return nil
}

func absolute(name string, args []any) (any, error) {
	v := args[0]
	if err := numberOrNull(name, v); err != nil || nullish(v) {
		return nil, err
	}
	if f, ok := v.(float64); ok {
		return math.Abs(f), nil
	}
	if bsonval.Compare(v, int32(0)) >= 0 {
		return v, nil
	}
	neg, err := bsonval.Sub(int32(0), v)
	if err != nil {
		return nil, fail(28680, "can't take $abs of long long min")
	}
	return neg, nil
}

func rounding(round func(float64) float64) func(string, []any) (any, error) {
	return func(name string, args []any) (any, error) {
		v := args[0]
		if err := numberOrNull(name, v); err != nil || nullish(v) {
			return nil, err
		}
		switch x := v.(type) {
		case float64:
			return round(x), nil
		case bson.Decimal128:
			return nil, refuseValue("%s of a decimal is not supported", name)
		}
		return v, nil
	}
}

// operands of the accumulators used as expressions: a single array stands for its elements.
func operands(args []any) []any {
	if a, ok := args[0].(bson.A); ok && len(args) == 1 {
		return a
	}
	return args
}

func extreme(sign int) func(string, []any) (any, error) {
	return func(_ string, args []any) (any, error) {
		var best any
		for _, v := range operands(args) {
			if !nullish(v) && (best == nil || bsonval.Compare(v, best)*sign > 0) {
				best = v
			}
		}
		return best, nil
	}
}

// sum ignores what is no number.
func sum(_ string, args []any) (any, error) {
	var total any = int32(0)
	for _, v := range operands(args) {
		if bsonval.IsNumber(v) {
			total, _ = widened(bsonval.Add, total, v) // two numbers
		}
	}
	return total, nil
}

func average(name string, args []any) (any, error) {
	n := int32(0)
	for _, v := range operands(args) {
		if bsonval.IsNumber(v) {
			n++
		}
	}
	if n == 0 {
		return nil, nil
	}
	total, err := sum(name, args)
	if err != nil {
		return nil, err
	}
	return bsonval.Div(total, n)
}
