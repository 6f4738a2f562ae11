package inventory

import (
	"bytes"
	_ "embed" // the template and the schema are files of this folder
)

//go:embed fleet.template.yaml
var fleetTemplate string

//go:embed fleet.schema.json
var fleetSchema string

// SchemaFile is the name the schema has beside fleet.yaml; the template's first line points editors to it.
const SchemaFile = "fleet.schema.json"

// Template is the commented fleet file that `fleet init` writes. It is valid as it stands when name and domain are.
func Template(name, domain string) []byte {
	t := []byte(fleetTemplate)
	t = bytes.ReplaceAll(t, []byte("{{name}}"), []byte(name))
	return bytes.ReplaceAll(t, []byte("{{domain}}"), []byte(domain))
}

// Schema is the JSON Schema of the fleet file, for editors. [Parse] checks more than it can say.
func Schema() []byte { return []byte(fleetSchema) }
