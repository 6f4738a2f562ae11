package inventory

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"
	"testing"
)

// The JSON Schema is generated from the types, with their comments as descriptions; -update writes it.
func TestSchemaIsCurrent(t *testing.T) {
	g := schemaGenerator{comments: fieldComments(t)}
	root := g.object(reflect.TypeFor[Fleet]())
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "popfleet fleet file, version 1"
	text, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, SchemaFile, string(text)+"\n")
}

type schema map[string]any

type schemaGenerator struct{ comments map[string]string }

// limits is what the checks demand beyond a field's type, as far as JSON Schema can say it, by Type.field or type.
var limits = map[string]schema{
	"Fleet.version":      {"const": 1},
	"Fleet.name":         {"pattern": labelPattern},
	"Fleet.domain":       {"pattern": domainPattern},
	"Fleet.providers":    {"propertyNames": schema{"enum": providers}},
	"Fleet.controllers":  {"minItems": 1},
	"Fleet.pops":         {"minItems": 1},
	"Controller.name":    {"pattern": labelPattern},
	"Operator.name":      {"pattern": labelPattern},
	"Unlock.cross_check": {"enum": []string{CrossCheckWhenPossible, CrossCheckRequired}},
	"Unlock.peers":       {"minimum": 0},
	"Machine.provider":   {"enum": providers},
	"Disks.serials":      {"maxItems": 2},
	"Disks.min_gb":       {"minimum": minDiskGB, "maximum": maxDiskGB},
	"PoP.name":           {"pattern": "^[a-z][a-z0-9]{0,19}$"},
	"PoP.nodes":          {"minItems": 1},
	"Place.lat":          {"minimum": -90, "maximum": 90},
	"Place.lon":          {"minimum": -180, "maximum": 180},
	"Node.name":          {"pattern": "^[a-z][a-z0-9]{0,19}-[1-9][0-9]{0,3}$"},
	"Store.uri":          {"pattern": `^(embedded|mongodb(\+srv)?://.+)$`},
	"App.env":            {"propertyNames": schema{"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}},
	"time.Duration":      {"pattern": `^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$`},
	"net/netip.AddrPort": {"pattern": `^([0-9.]+|\[[0-9a-fA-F:.]+\]):[0-9]+$`},
}

const (
	labelPattern  = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
	domainPattern = `^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`
)

func (g schemaGenerator) object(t reflect.Type) schema {
	properties, required := schema{}, []string{}
	for _, f := range yamlFields(t) {
		id := t.Name() + "." + f.name
		s := g.of(t.Field(f.index).Type)
		for k, v := range limits[id] {
			s[k] = v
		}
		if c := g.comments[t.Name()+"."+t.Field(f.index).Name]; c != "" {
			s["description"] = c
		}
		properties[f.name] = s
		if f.required {
			required = append(required, f.name)
		}
	}
	s := schema{"type": "object", "additionalProperties": false, "properties": properties}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

func (g schemaGenerator) of(t reflect.Type) schema {
	if t == durationType || t == addrPortType {
		s := schema{"type": "string"}
		for k, v := range limits[t.PkgPath()+"."+t.Name()] {
			s[k] = v
		}
		return s
	}
	switch t.Kind() {
	case reflect.Struct:
		s := g.object(t)
		if c := g.comments[t.Name()]; c != "" {
			s["description"] = c
		}
		return s
	case reflect.Map:
		return schema{"type": "object", "additionalProperties": g.of(t.Elem())}
	case reflect.Slice:
		return schema{"type": "array", "items": g.of(t.Elem())}
	case reflect.String:
		return schema{"type": "string"}
	case reflect.Int:
		return schema{"type": "integer"}
	case reflect.Float64:
		return schema{"type": "number"}
	}
	panic("no schema for " + t.String())
}

// fieldComments reads fleet.go: "Type" → its doc, "Type.Field" → the comment beside the field.
func fieldComments(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "fleet.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	comments := map[string]string{}
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.TYPE {
			continue
		}
		for _, s := range g.Specs {
			spec := s.(*ast.TypeSpec)
			comments[spec.Name.Name] = oneLine(g.Doc)
			for _, f := range spec.Type.(*ast.StructType).Fields.List {
				comments[spec.Name.Name+"."+f.Names[0].Name] = oneLine(f.Comment)
			}
		}
	}
	return comments
}

func oneLine(c *ast.CommentGroup) string {
	return strings.Join(strings.Fields(c.Text()), " ")
}

// What the checks accept, the schema must accept: an editor that marks a good file wrong is worse than none.
func TestSchemaNamesEveryField(t *testing.T) {
	var s schema
	if err := json.Unmarshal(Schema(), &s); err != nil {
		t.Fatal(err)
	}
	properties, ok := s["properties"].(map[string]any)
	if !ok {
		t.Fatal("no properties")
	}
	for _, f := range yamlFields(reflect.TypeFor[Fleet]()) {
		if _, ok := properties[f.name]; !ok {
			t.Errorf("%s is not in the schema", f.name)
		}
	}
}
