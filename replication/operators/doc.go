// Package operators is MongoDB's query and update language on single documents: filters, updates (operators,
// replacements, pipelines), projections and sort orders. The proxy evaluates with it what it must resolve at the origin;
// the simulated backend is made of it.
//
// It is pure: time comes with ApplyInput, nothing is random (who inserts gives the _id), nothing is read or written but
// the values at hand, and a document handed in is never changed. What it does not support it refuses by name, with the
// code a server answers with (*Error); nothing is ignored in silence. There is no collation: strings compare by bytes.
// Server-side JavaScript, full text, geometry and $jsonSchema are not here.
package operators
