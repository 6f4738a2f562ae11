package playbooks

import "popfleet/inventory/vault"

// FromVault lets the fleet's vault answer for [Secrets].
func FromVault(v *vault.Vault) Secrets { return vaultSecrets{v} }

type vaultSecrets struct{ v *vault.Vault }

func (s vaultSecrets) CACertPEM() ([]byte, error) { return s.v.CACertPEM() }

func (s vaultSecrets) Leaf(service, node string, dnsNames []string) (certPEM, keyPEM []byte, err error) {
	leaf, err := s.v.Leaf(vault.LeafSpec{Service: service, Node: node, DNSNames: dnsNames})
	if err != nil {
		return nil, nil, err
	}
	return leaf.CertPEM, leaf.KeyPEM.Reveal(), nil
}
