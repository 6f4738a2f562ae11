package inventory

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

const planted = "hunter2-planted"

// holders are the ways a secret sits inside what somebody prints.
func holders() map[string]any {
	s := SecretText(planted)
	return map[string]any{
		"value":      s,
		"pointer":    &s,
		"field":      struct{ Key Secret }{s},
		"unexported": struct{ key Secret }{s},
		"deep":       &struct{ inner struct{ list []Secret } }{struct{ list []Secret }{[]Secret{s}}},
		"slice":      []Secret{s},
		"map":        map[string]Secret{"k": s},
		"interface":  []any{s, &s},
		"error":      fmt.Errorf("with %v: %w", s, errors.New("x")),
	}
}

// shows reports whether text holds the secret in any form a printer would give bytes.
func shows(text string) bool {
	forms := []string{planted, fmt.Sprintf("%x", planted), fmt.Sprintf("%X", planted), fmt.Sprint([]byte(planted)), fmt.Sprintf("%#v", []byte(planted))}
	for _, f := range forms {
		if strings.Contains(text, strings.Trim(f, "[]")) {
			return true
		}
	}
	return false
}

func TestNoVerbPrintsASecret(t *testing.T) {
	for name, v := range holders() {
		for _, verb := range strings.Split("v +v #v s q x X d t b o U e g c p T w 10s -3v z !", " ") {
			if got := fmt.Sprintf("%"+verb, v); shows(got) {
				t.Errorf("%s with %%%s: %s", name, verb, got)
			}
		}
		// Too many arguments are printed by another path of fmt.
		if got := fmt.Sprintf(strings.Clone("x"), v); shows(got) { // Clone hides the wrong count, the test, from vet
			t.Errorf("%s as extra argument: %s", name, got)
		}
		if got := fmt.Sprint(v) + fmt.Sprintln(v); shows(got) {
			t.Errorf("%s by Sprint: %s", name, got)
		}
	}
}

func TestNoMarshallerWritesASecret(t *testing.T) {
	for name, v := range holders() {
		if got, _ := json.Marshal(v); shows(string(got)) {
			t.Errorf("%s as JSON: %s", name, got)
		}
		if got, _ := yaml.Marshal(v); shows(string(got)) {
			t.Errorf("%s as YAML: %s", name, got)
		}
		var out bytes.Buffer
		_ = gob.NewEncoder(&out).Encode(v)
		if shows(out.String()) {
			t.Errorf("%s as gob", name)
		}
	}
	if err := gob.NewEncoder(&bytes.Buffer{}).Encode(SecretText(planted)); err == nil {
		t.Error("gob took a secret")
	}
}

func TestNoLogHoldsASecret(t *testing.T) {
	var out bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		log := slog.New(h)
		for name, v := range holders() {
			log.Info("it", name, v, slog.Group("g", "k", v))
			log.With("w", v).Info("it")
		}
	}
	if shows(out.String()) {
		t.Error(out.String())
	}
}

func TestSecret(t *testing.T) {
	source := []byte(planted)
	s := NewSecret(source)
	source[0] = 'X'
	s.Reveal()[0] = 'Y'
	if string(s.Reveal()) != planted {
		t.Error("the secret changed with a copy")
	}
	if !s.Equal(SecretText(planted)) || s.Equal(SecretText("other")) || s.Equal(Secret{}) {
		t.Error("Equal is wrong")
	}
	if s.Empty() || !(Secret{}).Empty() || !SecretText("").Empty() || (Secret{}).Reveal() != nil {
		t.Error("Empty is wrong")
	}
}
