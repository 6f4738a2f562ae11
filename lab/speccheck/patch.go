package speccheck

import (
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// patchCloud corrects what the description has wrong or stale: server and primary IP lost datacenter on 2026-07-01, and
// names may be given as ids, which the provider's own Go client does.
func patchCloud(d *document) {
	doc := d.doc
	for _, item := range doc.Paths.Map() {
		for _, op := range item.Operations() {
			for _, class := range []string{"4xx", "5xx"} { // the library knows them in capitals only
				if r := op.Responses.Value(class); r != nil {
					op.Responses.Set(strings.ToUpper(class), r)
					op.Responses.Delete(class)
				}
			}
		}
	}
	for _, s := range doc.Components.Schemas {
		forget(s, "datacenter", 6)
	}
	for _, p := range []string{"/primary_ips", "/primary_ips/{id}"} {
		for _, op := range doc.Paths.Value(p).Operations() {
			for _, r := range op.Responses.Map() {
				if mt := r.Value.Content["application/json"]; mt != nil {
					forget(mt.Schema, "datacenter", 6)
				}
			}
		}
	}
	if in := doc.Components.Schemas["create_server_request"]; in != nil {
		for _, name := range []string{"image", "server_type", "location"} {
			in.Value.Properties[name].Value.Type = &openapi3.Types{"string", "integer"}
		}
		in.Value.Properties["ssh_keys"].Value.Items.Value.Type = &openapi3.Types{"string", "integer"}
	}
}

// forget makes a field optional in a schema and those inside it.
func forget(s *openapi3.SchemaRef, field string, depth int) {
	if s == nil || s.Value == nil || depth == 0 {
		return
	}
	s.Value.Required = slices.DeleteFunc(s.Value.Required, func(r string) bool { return r == field })
	for _, p := range s.Value.Properties {
		forget(p, field, depth-1)
	}
	forget(s.Value.Items, field, depth-1)
}

// patchRobot adds what the description lacks.
func patchRobot(d *document) {
	all := d.doc.Components.Schemas
	inside := func(schema, wrapper string) *openapi3.Schema { return all[schema].Value.Properties[wrapper].Value }
	activated, inactive := inside("RescueSystemActivated", "rescue"), inside("RescueSystem", "rescue")
	// boot_time: seen live at /boot/{n}/rescue/last, Berlin time without a zone; null before the first boot.
	stamp := openapi3.NewStringSchema().WithPattern(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$`).WithNullable()
	activated.Properties["boot_time"], inactive.Properties["boot_time"] = stamp.NewRef(), stamp.NewRef()
	// password: null when keys were given.
	activated.Properties["password"].Value.Nullable = true
	// host_key: {key: {fingerprint, type, size}}, and no name; the description has the same object, all optional.
	all["BootKey"].Value.Properties["key"].Value.Required = []string{"fingerprint", "type", "size"}
	all["BootKey"].Value.Required = []string{"key"}
	d.close()
}

// patchOVH adds the security scheme that every call names and the description does not have, without which nothing can
// be held against it.
func patchOVH(d *document) {
	if d.doc.Components.SecuritySchemes == nil {
		d.doc.Components.SecuritySchemes = openapi3.SecuritySchemes{}
	}
	d.doc.Components.SecuritySchemes["oAuth2AuthCode"] = &openapi3.SecuritySchemeRef{Value: openapi3.NewSecurityScheme().WithType("http").WithScheme("bearer")}
	d.close()
}

// close makes fields that a schema does not name a violation. Neither description requires many fields, so without it a
// misspelt one would pass.
func (d *document) close() {
	for _, s := range d.doc.Components.Schemas {
		shut(s, 12)
	}
	for _, item := range d.doc.Paths.Map() {
		for _, op := range item.Operations() {
			if op.RequestBody != nil && op.RequestBody.Value != nil {
				shutContent(op.RequestBody.Value.Content)
			}
			for _, r := range op.Responses.Map() {
				if r.Value != nil {
					shutContent(r.Value.Content)
				}
			}
		}
	}
}

func shutContent(c openapi3.Content) {
	for _, mt := range c {
		shut(mt.Schema, 12)
	}
}

// shut leaves the parts of an allOf open: each names only some of the fields.
func shut(s *openapi3.SchemaRef, depth int) {
	if s == nil || s.Value == nil || depth == 0 {
		return
	}
	if len(s.Value.AllOf) > 1 {
		whole := merged(s.Value.AllOf)
		s.Value.AllOf = nil
		s.Value.Type, s.Value.Properties, s.Value.Required = whole.Type, whole.Properties, whole.Required
	}
	for _, p := range s.Value.Properties {
		shut(p, depth-1)
	}
	shut(s.Value.Items, depth-1)
	if len(s.Value.Properties) > 0 && len(s.Value.AllOf) == 0 && s.Value.AdditionalProperties.Has == nil && s.Value.AdditionalProperties.Schema == nil {
		s.Value.AdditionalProperties.Has = new(bool)
	}
}

// merged is one object with the fields of all parts.
func merged(parts openapi3.SchemaRefs) *openapi3.Schema {
	out := openapi3.NewObjectSchema()
	for _, p := range parts {
		for name, s := range p.Value.Properties {
			out.Properties[name] = s
		}
		out.Required = append(out.Required, p.Value.Required...)
	}
	return out
}
