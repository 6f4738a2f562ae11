package wire

// Limits bound one message. They are tested before memory is taken for what a length field claims.
type Limits struct {
	MessageBytes  int // whole message, before and after decompression
	DocumentBytes int // any one document, a command's body too
	Sections      int // sections of one OP_MSG
	Documents     int // documents in one kind-1 section
	Depth         int // nesting of documents and arrays
}

// What MongoDB's servers tell in hello, and what they keep to inside.
const (
	MaxMessageBytes   = 48_000_000
	MaxDocumentBytes  = 16 << 20 // maxBsonObjectSize, for what a user stores
	MaxWriteBatchSize = 100_000
	documentOverhead  = 16 << 10 // a command may be that much larger than the document it carries
	maxDepth          = 200      // servers parse that deep, and store half of it
)

// DefaultLimits are those of MongoDB's own servers.
func DefaultLimits() Limits {
	return Limits{MessageBytes: MaxMessageBytes, DocumentBytes: MaxDocumentBytes + documentOverhead, Sections: 16,
		Documents: MaxWriteBatchSize, Depth: maxDepth}
}

// GreetingLimits are for a peer that has not logged in: room for a hello and a SCRAM conversation, and no more.
func GreetingLimits() Limits {
	return Limits{MessageBytes: 64 << 10, DocumentBytes: 48 << 10, Sections: 4, Documents: 16, Depth: 20}
}
