package speccheck

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

const formType = "application/x-www-form-urlencoded"

// plainForm turns a form in which arrays are written name[]=a&name[]=b, as PHP reads them, into the one the library
// reads. A field that the description does not have, or an array without brackets, is an error.
func plainForm(body []byte, s *openapi3.Schema) ([]byte, error) {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	out := url.Values{}
	for key, values := range form {
		name, bracketed := strings.CutSuffix(key, "[]")
		p := s.Properties[name]
		switch {
		case p == nil || p.Value == nil:
			return nil, fmt.Errorf("field %q is not described", key)
		case p.Value.Type.Is("array") != bracketed:
			return nil, fmt.Errorf("field %q: arrays, and only they, end in []", key)
		case !bracketed && len(values) != 1:
			return nil, fmt.Errorf("field %q is given %d times", key, len(values))
		}
		out[name] = values
	}
	return []byte(out.Encode()), nil
}
