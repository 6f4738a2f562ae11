package vault

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/crypto/ssh"
)

// clockSlack is how far a certificate's beginning lies before its issue, for machines whose clock is behind.
const clockSlack = 10 * time.Minute

// FleetKey is the key the fleet itself logs in with where no certificate is understood: rescue and initramfs.
func (v *Vault) FleetKey() (KeyPair, error) { return v.sshKey("ssh/fleet.age", "fleet") }

// UserCA is the SSH authority whose certificates open root logins on the nodes' systems.
func (v *Vault) UserCA() (KeyPair, error) { return v.sshKey("ssh/user-ca.age", "user-ca") }

func (v *Vault) sshKey(file, comment string) (KeyPair, error) {
	k, err := once(v, file, func() (storedKey, error) { return newStoredKey(v.fleet + " " + comment) })
	if err != nil {
		return KeyPair{}, err
	}
	return k.pair(), nil
}

// SignOperator signs pub for root logins by the operator called name, for ttl from now.
func (v *Vault) SignOperator(pub ssh.PublicKey, name string, ttl time.Duration) (*ssh.Certificate, error) {
	if err := checkName("operator", name); err != nil {
		return nil, err
	}
	if ttl <= 0 {
		return nil, fmt.Errorf("operator certificate for %s: lifetime %s is not positive", name, ttl)
	}
	ca, err := v.UserCA()
	if err != nil {
		return nil, err
	}
	signer, err := ca.Signer()
	if err != nil {
		return nil, err
	}
	cert := operatorCert(pub, v.fleet, name, v.now(), ttl)
	if err := cert.SignCert(rand.Reader, signer); err != nil {
		return nil, fmt.Errorf("operator certificate for %s: %w", name, err)
	}
	return cert, nil
}

func operatorCert(pub ssh.PublicKey, fleet, name string, now time.Time, ttl time.Duration) *ssh.Certificate {
	var serial [8]byte
	_, _ = rand.Read(serial[:])
	return &ssh.Certificate{
		Key:             pub,
		Serial:          binary.BigEndian.Uint64(serial[:]),
		CertType:        ssh.UserCert,
		KeyId:           "popfleet " + fleet + " operator " + name, // what sshd logs
		ValidPrincipals: []string{"root"},
		ValidAfter:      uint64(now.Add(-clockSlack).Unix()),
		ValidBefore:     uint64(now.Add(ttl).Unix()),
		Permissions:     ssh.Permissions{Extensions: map[string]string{"permit-pty": "", "permit-port-forwarding": ""}},
	}
}
