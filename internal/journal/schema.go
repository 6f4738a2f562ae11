package journal

import _ "embed" // the schema is SQL in a file of its own

//go:embed schema.sql
var schema string

const schemaVersion = 1
