package shop

import (
	"fmt"
	"slices"
	"strings"

	"popfleet/lab/ovh/api"
)

// plan is a server that can be ordered, a few of the provider's hundreds.
type plan struct {
	code, product string // product is the part of the catalog: baremetalServers | eco
	name, server  string
	ucents        int64 // a month, without tax
	setup         int64
	stock         map[string]string // datacenter → availability
	families      []family
}

// family is a choice that an order has to make once.
type family struct {
	name   string // memory | storage | bandwidth
	addons []addon
}

type addon struct {
	code, name string
	ucents     int64
}

const (
	bareMetal  = "baremetalServers"
	eco        = "eco"
	eurosCents = 100_000_000 // ucents of one euro
)

func plans() []plan {
	return []plan{
		{
			code: "24rise01-v1", product: bareMetal, name: "RISE-1 | Intel Xeon-E 2386G", server: "24rise01", ucents: 61 * eurosCents, setup: 61 * eurosCents,
			stock: map[string]string{"gra": "1H-high", "rbx": "72H", "sbg": "unavailable"},
			families: []family{
				{"memory", []addon{{"ram-32g-ecc-3200-24rise01-v1", "32GB DDR4 ECC 3200MHz", 0}, {"ram-64g-ecc-3200-24rise01-v1", "64GB DDR4 ECC 3200MHz", 14 * eurosCents}}},
				{"storage", []addon{{"softraid-2x512nvme-24rise01-v1", "2x SSD NVMe 512GB Soft RAID", 0}, {"softraid-2x960nvme-24rise01-v1", "2x SSD NVMe 960GB Soft RAID", 10 * eurosCents}}},
				{"bandwidth", []addon{{"bandwidth-1000-24rise-v1", "1Gbps unmetered", 0}}},
			},
		},
		{
			code: "24sk10", product: eco, name: "KS-1 | Intel Xeon-D 1520", server: "24sk10", ucents: 17 * eurosCents,
			stock: map[string]string{"gra": "1H-low", "rbx": "1H-high", "bhs": "comingSoon"},
			families: []family{
				{"memory", []addon{{"ram-32g-ecc-2133-24sk10", "32GB DDR4 ECC 2133MHz", 0}}},
				{"storage", []addon{{"softraid-2x2000sa-24sk10", "2x HDD SATA 2TB Soft RAID", 0}, {"softraid-2x480ssd-24sk10", "2x SSD SATA 480GB Soft RAID", 2 * eurosCents}}},
				{"bandwidth", []addon{{"bandwidth-300-24sk", "300Mbps unmetered", 0}}},
			},
		},
	}
}

func planOf(product, code string) (plan, bool) {
	i := slices.IndexFunc(plans(), func(p plan) bool { return p.product == product && p.code == code })
	if i < 0 {
		return plan{}, false
	}
	return plans()[i], true
}

// option finds an addon and its family.
func (p plan) option(code string) (family, addon, bool) {
	for _, f := range p.families {
		for _, a := range f.addons {
			if a.code == code {
				return f, a, true
			}
		}
	}
	return family{}, addon{}, false
}

// deliverable says whether an order for a datacenter could be met.
func (p plan) deliverable(datacenter string) bool {
	a, ok := p.stock[datacenter]
	return ok && a != "unavailable" && a != "comingSoon"
}

// price is an order.Price.
func price(ucents int64) map[string]any {
	value := float64(ucents) / eurosCents
	return map[string]any{"currencyCode": "EUR", "priceInUcents": ucents, "text": fmt.Sprintf("%.2f €", value), "value": value}
}

// availabilities answers per configuration: a plan with one memory and one storage.
func (s *Shop) availabilities(r *api.Request) (any, error) {
	q := r.Query
	wanted := func(name, value string) bool { return q.Get(name) == "" || q.Get(name) == value }
	centers := strings.Split(q.Get("datacenters"), ",")
	out := []any{}
	for _, p := range plans() {
		for _, memory := range p.families[0].addons {
			for _, storage := range p.families[1].addons {
				m, s := short(memory.code, p), short(storage.code, p)
				if wanted("planCode", p.code) && wanted("server", p.server) && wanted("memory", m) && wanted("storage", s) {
					out = append(out, available(p, m, s, centers, q.Get("excludeDatacenters") == "true"))
				}
			}
		}
	}
	return out, nil
}

// short is an addon's name in a configuration: without the plan.
func short(code string, p plan) string { return strings.TrimSuffix(code, "-"+p.code) }

func available(p plan, memory, storage string, centers []string, exclude bool) map[string]any {
	in := []any{}
	for _, dc := range sorted(p.stock) {
		if centers[0] == "" || slices.Contains(centers, dc) != exclude {
			in = append(in, map[string]any{"datacenter": dc, "availability": p.stock[dc]})
		}
	}
	return map[string]any{
		"fqn": strings.Join([]string{p.code, memory, storage}, "."), "planCode": p.code, "server": p.server, "memory": memory, "storage": storage,
		"gpu": nil, "systemStorage": nil, "datacenters": in,
	}
}
