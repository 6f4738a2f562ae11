package hetznerrobot

import (
	"fmt"
	"net/http"
	"net/url"
	"time"
)

func (f *fake) boot(w http.ResponseWriter, r *http.Request, parts []string, form url.Values) {
	b := f.box(w, parts[1])
	switch {
	case b == nil:
	case b.noBoot:
		refuse(w, 404, "BOOT_NOT_AVAILABLE", nil)
	case len(parts) == 2:
		answer(w, 200, map[string]any{"boot": map[string]any{"rescue": b.rescue(), "linux": map[string]any{"server_number": b.number, "active": b.install == "linux"},
			"vnc": map[string]any{"server_number": b.number, "active": b.install == "vnc"}, "windows": nil, "plesk": nil, "cpanel": nil}})
	case len(parts) == 4 && parts[3] == "last":
		f.lastRescue(w, b)
	case r.Method == http.MethodPost:
		f.arm(w, b, form)
	case r.Method == http.MethodDelete:
		b.armed, b.allowed = "", nil
		answer(w, 200, map[string]any{"rescue": b.rescue()})
	default:
		answer(w, 200, map[string]any{"rescue": b.rescue()})
	}
}

func (b *box) rescue() map[string]any {
	out := map[string]any{"server_number": b.number, "os": []string{"linux", "vkvm"}, "arch": []int{64, 32}, "active": false,
		"password": nil, "authorized_key": []any{}, "host_key": []any{}}
	if b.armed != "" {
		out["os"], out["arch"], out["active"], out["authorized_key"] = b.armed, 64, true, wireKeys(b.allowed)
	}
	return out
}

func wireKeys(fingerprints []string) []any {
	out := []any{}
	for _, fp := range fingerprints {
		out = append(out, map[string]any{"key": map[string]any{"name": "k", "fingerprint": fp, "type": "ED25519", "size": 256}})
	}
	return out
}

func (f *fake) arm(w http.ResponseWriter, b *box, form url.Values) {
	if b.armed != "" {
		f.t.Error("rescue was armed while it was armed: what that does is not documented")
	}
	for _, fp := range form["authorized_key[]"] {
		if f.keys[fp] == "" {
			refuse(w, 400, "INVALID_INPUT", map[string]any{"missing": nil, "invalid": []string{"authorized_key"}})
			return
		}
	}
	b.armed, b.allowed = form.Get("os"), form["authorized_key[]"]
	answer(w, 200, map[string]any{"rescue": b.rescue()})
}

func (f *fake) lastRescue(w http.ResponseWriter, b *box) {
	if b.last == nil {
		refuse(w, 404, "NOT_FOUND", nil)
		return
	}
	out := b.rescue()
	out["os"], out["arch"], out["authorized_key"] = b.last.os, 64, wireKeys(b.last.allowed)
	out["boot_time"] = b.last.at.In(f.zone).Format(robotTime)
	if !b.last.keysAt.After(time.Now()) {
		out["host_key"] = wireKeys(b.last.hosts)
	}
	answer(w, 200, map[string]any{"rescue": out})
}

func (f *fake) key(w http.ResponseWriter, r *http.Request, parts []string, form url.Values) {
	if r.Method == http.MethodPost {
		fp, err := fingerprintMD5(form.Get("data"))
		switch {
		case err != nil || form.Get("name") == "":
			refuse(w, 400, "INVALID_INPUT", map[string]any{"missing": nil, "invalid": []string{"data"}})
		case f.keys[fp] != "":
			refuse(w, 409, "KEY_ALREADY_EXISTS", nil)
		default:
			f.keys[fp] = form.Get("name")
			answer(w, 201, map[string]any{"key": map[string]any{"fingerprint": fp}})
		}
		return
	}
	if name := f.keys[parts[1]]; name != "" {
		answer(w, 200, map[string]any{"key": map[string]any{"name": name, "fingerprint": parts[1]}})
		return
	}
	refuse(w, 404, "NOT_FOUND", nil)
}

func (f *fake) reverse(w http.ResponseWriter, r *http.Request, parts []string, form url.Values) {
	ip := parts[1]
	name, exists := f.rdns[ip]
	switch {
	case ip == "203.0.113.9":
		refuse(w, 404, "IP_NOT_FOUND", nil)
		return
	case r.Method == http.MethodPut && exists:
		refuse(w, 409, "RDNS_ALREADY_EXISTS", nil)
		return
	case r.Method == http.MethodPut, r.Method == http.MethodPost:
		f.rdns[ip] = form.Get("ptr")
		status := 201
		if exists {
			status = 200
		}
		answer(w, status, map[string]any{"rdns": map[string]any{"ip": ip, "ptr": form.Get("ptr")}})
		return
	case !exists:
		refuse(w, 404, "RDNS_NOT_FOUND", nil)
		return
	case r.Method == http.MethodDelete:
		delete(f.rdns, ip)
		w.WriteHeader(200)
		return
	}
	answer(w, 200, map[string]any{"rdns": map[string]any{"ip": ip, "ptr": name}})
}

// order sells one EX44 at FSN1 and NBG1, and the auctioned machine 282323.
func (f *fake) order(w http.ResponseWriter, r *http.Request, parts []string, form url.Values) {
	kind := parts[1]
	switch {
	case parts[2] == "product" && len(parts) == 3:
		answer(w, 200, []any{product(kind)})
	case parts[2] == "product" && parts[3] == fmt.Sprint(productOf(kind)):
		answer(w, 200, product(kind))
	case r.Method == http.MethodPost:
		f.buy(w, kind, form)
	case parts[2] == "transaction" && len(parts) == 3 && len(f.orders[kind]) > 0:
		var all []any
		for _, o := range f.orders[kind] {
			all = append(all, map[string]any{"transaction": o})
		}
		answer(w, 200, all)
	case parts[2] == "transaction" && len(parts) == 4:
		for _, o := range f.orders[kind] {
			if o["id"] == parts[3] {
				answer(w, 200, map[string]any{"transaction": o})
				return
			}
		}
		refuse(w, 404, "NOT_FOUND", nil)
	default:
		refuse(w, 404, "NOT_FOUND", nil)
	}
}

func productOf(kind string) any {
	if kind == "server" {
		return "EX44"
	}
	return 282323
}

func product(kind string) map[string]any {
	price := func(at, net string) map[string]any {
		return map[string]any{"location": at, "price": map[string]any{"net": net, "gross": net, "hourly_net": "0.0795", "hourly_gross": "0.0795"},
			"price_setup": map[string]any{"net": "41.18", "gross": "41.18"}}
	}
	address := map[string]any{"id": "primary_ipv4", "name": "Primary IPv4", "min": 0, "max": 1, "prices": []any{
		map[string]any{"location": "FSN1", "price": map[string]any{"net": "1.7000", "gross": "1.7000", "hourly_net": "0.0027", "hourly_gross": "0.0027"},
			"price_setup": map[string]any{"net": "0.0000", "gross": "0.0000"}}}}
	p := map[string]any{"id": productOf(kind), "name": "Server", "description": []string{"2 disks"}, "traffic": "20 TB",
		"dist": []string{"Rescue system"}, "lang": []string{"en"}, "orderable_addons": []any{address}}
	if kind == "server" {
		p["location"], p["prices"] = []string{"FSN1", "NBG1"}, []any{price("FSN1", "49.58"), price("NBG1", "52.00")}
	} else {
		p["datacenter"], p["price"], p["price_vat"], p["price_hourly"], p["price_hourly_vat"] = "FSN1-DC4", "28.57", "34.00", nil, nil
		p["price_setup"], p["price_setup_vat"] = "0.00", "0.00"
	}
	return map[string]any{"product": p}
}

func (f *fake) buy(w http.ResponseWriter, kind string, form url.Values) {
	if form.Get("product_id") != fmt.Sprint(productOf(kind)) || form.Get("dist") != "Rescue system" || form.Has("comment") {
		refuse(w, 400, "INVALID_INPUT", map[string]any{"missing": nil, "invalid": []string{"product_id"}})
		return
	}
	o := map[string]any{"id": fmt.Sprintf("B20261122-%d", len(f.orders[kind])+1), "date": "2026-11-22T12:54:01+01:00", "status": "in process",
		"server_number": nil, "server_ip": nil, "authorized_key": wireKeys(form["authorized_key[]"]), "host_key": []any{}, "comment": nil,
		"product": map[string]any{"id": productOf(kind), "location": form.Get("location")}, "addons": form["addon[]"]}
	if form.Get("test") == "true" {
		o["status"] = "cancelled"
	} else {
		f.orders[kind] = append(f.orders[kind], o)
	}
	answer(w, 201, map[string]any{"transaction": o})
}
