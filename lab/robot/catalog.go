package robot

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// product is a standard server. Names are the provider's, prices are the lab's own; with VAT they are dearer, so that who
// shows one for the other is seen.
type product struct {
	id                   string
	description          []string
	locations            []string
	cents, setup, ipCost int // a month, once, and a month for the address; net
}

const vatPercent = 19

func products() []product {
	return []product{
		{"EX44", []string{"Intel® Core™ i5-13500", "64 GB DDR4 RAM", "2 x 512 GB NVMe SSD"}, []string{"FSN1", "HEL1"}, 3900, 3900, 170},
		{"AX41-NVMe", []string{"AMD Ryzen™ 5 3600", "64 GB DDR4 RAM", "2 x 512 GB NVMe SSD"}, []string{"FSN1", "HEL1", "NBG1"}, 3740, 0, 170},
		{"AX102", []string{"AMD Ryzen™ 9 7950X3D", "128 GB DDR5 ECC RAM", "2 x 1.92 TB NVMe SSD"}, []string{"FSN1"}, 10400, 3900, 170},
	}
}

func findProduct(id string) (product, bool) {
	all := products()
	i := slices.IndexFunc(all, func(p product) bool { return p.id == id })
	if i < 0 {
		return product{}, false
	}
	return all[i], true
}

func euros(cents int) string { return fmt.Sprintf("%d.%02d", cents/100, cents%100) }

func withVAT(cents int) int { return (cents*(100+vatPercent) + 50) / 100 }

// hourly is a month's price over the provider's 624 hours.
func hourly(cents int) string { return fmt.Sprintf("%.4f", float64(cents)/100/624) }

func price(cents int) object {
	return object{"net": euros(cents), "gross": euros(withVAT(cents)), "hourly_net": hourly(cents), "hourly_gross": hourly(withVAT(cents))}
}

func setupPrice(cents int) object {
	return object{"net": euros(cents), "gross": euros(withVAT(cents))}
}

func priceTable(locations []string, monthly, setup int) []object {
	out := []object{}
	for _, l := range locations {
		out = append(out, object{"location": l, "price": price(monthly), "price_setup": setupPrice(setup)})
	}
	return out
}

func addons(locations []string, cents int) []object {
	return []object{{"id": "primary_ipv4", "name": "Primary IPv4", "min": 0, "max": 1, "prices": priceTable(locations, cents, 0)}}
}

func (p product) wire() object {
	return object{
		"id": p.id, "name": "Dedicated Server " + p.id, "description": p.description, "traffic": "unlimited",
		"dist": []string{rescueDist}, "arch": []int{64}, "lang": []string{"en"}, "location": p.locations,
		"prices": priceTable(p.locations, p.cents, p.setup), "orderable_addons": addons(p.locations, p.ipCost),
	}
}

// ordered is the product as a transaction shows it.
func (p product) ordered(o wish) object {
	return object{
		"id": p.id, "name": "Dedicated Server " + p.id, "description": p.description, "traffic": "unlimited",
		"dist": rescueDist, "arch": "64", "lang": "en", "location": o.location,
	}
}

// rescueDist is the one distribution that servers are handed over with here.
const rescueDist = "Rescue system"

func (r *Robot) listProducts(q *request) (any, error) {
	min, max, wrong := limits(q, "min_price", "max_price")
	minSetup, maxSetup, wrongSetup := limits(q, "min_price_setup", "max_price_setup")
	if wrong = append(wrong, wrongSetup...); wrong != nil {
		return nil, invalid(wrong...)
	}
	where := q.query.Get("location")
	var out []object
	for _, p := range products() {
		if p.cents >= min && p.cents <= max && p.setup >= minSetup && p.setup <= maxSetup && (where == "" || slices.Contains(p.locations, where)) {
			out = append(out, object{"product": p.wire()})
		}
	}
	if out == nil {
		return nil, notFound("NOT_FOUND", "No products found")
	}
	return out, nil
}

// limits reads two prices in euros as cents.
func limits(q *request, low, high string) (min, max int, wrong []string) {
	min, max = 0, 1<<30
	for name, to := range map[string]*int{low: &min, high: &max} {
		text := q.query.Get(name)
		if text == "" {
			continue
		}
		v, err := strconv.ParseFloat(text, 64)
		if err != nil || v < 0 || v > 1e6 {
			wrong = append(wrong, name)
			continue
		}
		*to = int(v*100 + 0.5)
	}
	slices.Sort(wrong)
	return min, max, wrong
}

func (r *Robot) getProduct(q *request) (any, error) {
	p, ok := findProduct(q.PathValue("id"))
	if !ok {
		return nil, notFound("NOT_FOUND", "Product not found")
	}
	return object{"product": p.wire()}, nil
}

// location is the part of a data center's name that orders go by.
func (m Machine) location() string {
	where, _, _ := strings.Cut(m.DC, "-")
	return where
}

// sold says whether a machine of the stock is somebody's already; r.mu is held.
func (r *Robot) sold(m Machine) bool {
	if r.state.Servers[m.Number] != nil {
		return true
	}
	return slices.ContainsFunc(r.state.Transactions, func(t *transaction) bool { return t.Server == m.Number })
}

// offers are the machines of the stock that the market shows; r.mu is held.
func (r *Robot) offers() []Machine {
	var out []Machine
	for _, m := range r.opt.Stock {
		if m = complete(m); m.Offer != 0 && !r.sold(m) {
			out = append(out, m)
		}
	}
	return out
}

func (r *Robot) findOffer(id string) (Machine, bool) {
	all := r.offers()
	i := slices.IndexFunc(all, func(m Machine) bool { return strconv.Itoa(m.Offer) == id })
	if i < 0 {
		return Machine{}, false
	}
	return all[i], true
}

// offered is what offers and transactions both show of a server from the market.
func (m Machine) offered() object {
	c := m.Config
	return object{
		"id": m.Offer, "name": "SB" + strconv.Itoa(m.Cents/100),
		"description": []string{"Intel Core i7-6700", fmt.Sprintf("%d MB RAM", c.MemoryMB), fmt.Sprintf("%dx SSD %d GB", c.Disks, c.DiskGB)},
		"traffic":     "unlimited", "cpu": "Intel Core i7-6700", "cpu_benchmark": 8089, "memory_size": max(1, c.MemoryMB/1024),
		"hdd_size": c.DiskGB, "hdd_text": "ENT.HDD ECC INIC", "hdd_count": c.Disks, "datacenter": m.DC, "network_speed": "1 Gbit/s",
	}
}

func (m Machine) offer() object {
	o := m.offered()
	o["dist"], o["arch"], o["lang"] = []string{rescueDist}, []int{64}, []string{"en"}
	o["price"], o["price_hourly"], o["price_setup"] = euros(m.Cents), hourly(m.Cents), euros(0)
	o["price_vat"], o["price_hourly_vat"], o["price_setup_vat"] = euros(withVAT(m.Cents)), hourly(withVAT(m.Cents)), euros(0)
	o["fixed_price"], o["next_reduce"], o["next_reduce_date"] = true, 0, "2018-05-01 12:22:00"
	o["orderable_addons"] = addons([]string{m.location()}, 170)
	return o
}

func (r *Robot) listOffers(*request) (any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []object
	for _, m := range r.offers() {
		out = append(out, object{"product": m.offer()})
	}
	if out == nil {
		return nil, notFound("NOT_FOUND", "No products found")
	}
	return out, nil
}

func (r *Robot) getOffer(q *request) (any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, ok := r.findOffer(q.PathValue("id"))
	if !ok {
		return nil, notFound("NOT_FOUND", "Product not found")
	}
	return object{"product": m.offer()}, nil
}
