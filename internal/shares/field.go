package shares

// GF(2^8) with the polynomial x^8+x^4+x^3+x+1. No table and no branch depends on a value, so neither the cache nor the
// time tells what was multiplied.

func mul(a, b byte) byte {
	var p byte
	for range 8 {
		p ^= a & -(b & 1)
		a = a<<1 ^ 0x1b&-(a>>7)
		b >>= 1
	}
	return p
}

// inverse is a^254; that of 0 is 0.
func inverse(a byte) byte {
	r := byte(1)
	for range 7 { // 254 is 11111110 in binary
		a = mul(a, a)
		r = mul(r, a)
	}
	return r
}

// at evaluates the polynomial with these coefficients, constant first, at x.
func at(coefficients []byte, x byte) byte {
	var y byte
	for i := len(coefficients) - 1; i >= 0; i-- {
		y = mul(y, x) ^ coefficients[i]
	}
	return y
}
