// Package strictjson decodes configuration and messages whose every key must be known: an unknown key, a second value
// or a wrong type is an error that names the place. Input is bounded by the caller's reader.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// Decode reads exactly one JSON value from data into v.
func Decode(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return at(data, d.InputOffset(), err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return at(data, d.InputOffset(), errors.New("more than one value"))
	}
	return nil
}

const maxFileBytes = 4 << 20

// File reads one JSON value from the file at path into v; the error names the file.
func File(path string, v any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return err
	}
	if len(data) > maxFileBytes {
		return fmt.Errorf("%s: larger than %d bytes", path, maxFileBytes)
	}
	if err := Decode(data, v); err != nil {
		return fmt.Errorf("%s:%w", path, err)
	}
	return nil
}

func at(data []byte, offset int64, err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &kind):
		offset = kind.Offset
	}
	offset = min(offset, int64(len(data)))
	before := data[:offset]
	line := bytes.Count(before, []byte("\n")) + 1
	column := len(before) - bytes.LastIndexByte(before, '\n')
	return fmt.Errorf("%d:%d: %w", line, column, err)
}
