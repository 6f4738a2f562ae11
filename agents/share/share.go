// Package share passes content on from one node to another of its PoP, so that it crosses the operator's uplink once
// (docs/protocols/exchange.md, "Passing on"). A node knows no other by itself: the operator tells the one that has the
// content to listen, and the one that lacks it where, as whom and with which token to ask.
//
// The server opens only blobs, by digest, to whoever shows the token that the operator made for that blob and that
// receiver; it listens for as long as the operator's exchange lives. The client believes the one certificate it was
// told, and hands on bytes that nobody has verified yet: its caller checks the digest. It gives up a peer that is silent
// or drips; what it got until then stays good, and the rest may come from anywhere else.
package share

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Place is where content of one kind lies, %s standing for its digest in hex.
type Place struct {
	Whole   string // complete and verified
	Growing string // being received; "" where that can't be seen
}

// Places are where a node keeps content: the image while it is installed, the image that it was installed from, and what
// its releases are made of.
func Places() []Place {
	return []Place{
		{Whole: ImageInRescue, Growing: ImageInRescue + Part},
		{Whole: "/opt/fleet/blobs/%s", Growing: "/opt/fleet/blobs/%s.fleet-new"},
		{Whole: ImageOnDisk},
	}
}

// Where an installation keeps its image for others: in rescue's memory while it lasts, on the installed disk afterwards.
const (
	ImageInRescue = "/run/fleet/install/image-%s"
	ImageOnDisk   = "/var/lib/fleet/image/%s"
	Part          = ".part" // ends the name of what is not complete yet
)

// oneTimeCertificate is known by its digest only; no name in it is ever looked at.
func oneTimeCertificate() (tls.Certificate, string, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	// The node's clock may be wrong, the receiver's too: the certificate's life is the listener's.
	t := x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}
	der, err := x509.CreateCertificate(rand.Reader, &t, &t, public, private)
	if err != nil {
		return tls.Certificate{}, "", fmt.Errorf("make a one-time certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, fingerprint(der), nil
}

func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// pinned believes exactly the certificate with this fingerprint.
func pinned(want string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// No name and no chain is checked: the certificate itself is, byte for byte, below.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 || fingerprint(s.PeerCertificates[0].Raw) != want {
				return errors.New("it shows another certificate than the operator named")
			}
			return nil
		},
	}
}
