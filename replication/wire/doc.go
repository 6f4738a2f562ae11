// Package wire is the MongoDB wire protocol as a server and as a client need it: framing of OP_MSG with its sections and
// checksum, OP_COMPRESSED (snappy, zlib, zstd), and the OP_QUERY and OP_REPLY of a legacy hello.
//
// Whatever it hands out has been walked: sizes, section structure, element types and nesting of every document are
// within Limits, so the code behind may use bson.Raw without a second check. Text is not checked for UTF-8, as no
// server does. It never interprets a command, opens a connection or logs.
//
// A message that breaks the protocol is one *FormatError; the stream behind it can't be trusted, so the caller closes
// it. io.EOF is a clean end between messages, io.ErrUnexpectedEOF one inside a message.
package wire
