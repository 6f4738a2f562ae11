package spec

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
)

// OpShare makes a node pass content on to others of its PoP: Share → Shared. The node listens until the exchange ends.
const OpShare = "share"

// SharePort is where a node passes content on. It is open to the fleet's nodes in their nftables and to everybody in the
// provider's firewall, which also stands before rescue systems; nothing listens there but during a transfer.
const SharePort = 7445

// EncodingPeer, in what a need accepts, means that the operator may name a [Peer] instead of sending the content.
const EncodingPeer = "peer"

// Share opens a node's store of content to whoever shows a token made from Secret. It lasts until the exchange ends, or
// Seconds.
type Share struct {
	Version int    `json:"version"` // 1
	Port    int    `json:"port"`
	Secret  []byte `json:"secret"` // 32 random bytes, for this run of the operator only
	Seconds int    `json:"seconds"`
}

// Shared is where and as whom the node listens.
type Shared struct {
	Port        int    `json:"port"`
	Certificate string `json:"certificate"` // SHA-256, in hex, of the one-time TLS certificate (DER)
}

// Peer is a node that passes a blob on, as the operator introduces it to the one that needs the blob. Nothing the peer
// sends is believed before the blob's digest is checked.
type Peer struct {
	Node        string `json:"node"`
	Addr        string `json:"addr"` // host:port
	Certificate string `json:"certificate"`
	Receiver    string `json:"receiver"` // whom the token is for
	Token       string `json:"token"`
	StallSec    int    `json:"stall_sec"` // silence after which the peer is given up
}

// ShareToken is what the receiver of one blob shows: it opens that blob to that receiver, and nothing else.
func ShareToken(secret []byte, sha256hex, receiver string) string {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte("popfleet share 1\n" + sha256hex + "\n" + receiver))
	return hex.EncodeToString(m.Sum(nil))
}
