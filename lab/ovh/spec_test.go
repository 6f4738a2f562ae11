package ovh_test

import (
	"fmt"
	"testing"

	"popfleet/lab/speccheck"
)

// Every call that a description knows is made at least once, and each exchange is held against it.
func TestEverythingFitsTheDescription(t *testing.T) {
	w := startChecked(t, speccheck.Load(t, speccheck.OVH), nil)
	w.lookAround()
	w.actOn()
	w.names()
	w.buy()
	w.wrongly()
	t.Logf("%d exchanges of %d kinds, %d of them in no description", w.check.Total(), len(w.check.Seen()), w.check.Apart())
	if w.check.Total() < 70 {
		t.Errorf("only %d exchanges", w.check.Total())
	}
}

func (w *world) read(paths ...string) {
	w.t.Helper()
	for _, p := range paths {
		var v any
		w.ok("GET", p, nil, &v)
	}
}

func (w *world) lookAround() {
	w.read("/auth/time", "/dedicated/server", server, server+"/boot", server+"/boot?bootType=harddisk", server+"/boot/1", server+"/task",
		server+"/install/compatibleTemplates", server+"/specifications/hardware", server+"/specifications/network", server+"/ips",
		server+"/serviceInfos", server+"/intervention", "/dedicated/server/datacenter/availabilities?planCode=24sk10",
		"/ip", "/ip/198.19.1.11%2F32", "/ip/2001:db8:3:b::%2F64", "/me", "/me/sshKey",
		"/me/payment/method", "/me/payment/method/7001", "/me/order")
}

func (w *world) actOn() {
	w.ok("PUT", server, map[string]any{"bootId": rescueEU, "rescueSshKey": publicKey, "rescueMail": "ops@example.org", "monitoring": false,
		"noIntervention": true, "efiBootloaderPath": "\\efi\\debian\\grubx64.efi", "rootDevice": "/dev/sda", "bootScript": "#!ipxe\nexit\n", "state": "ok"}, nil)
	w.read(server)
	w.finish(w.reboot().TaskID)
	must(w.t, w.ovh.Intervene(service, false))
	var ids []int64
	w.ok("GET", server+"/intervention", nil, &ids)
	w.read(fmt.Sprintf("%s/intervention/%d", server, ids[0]), server+"/task?function=hardReboot&status=done")
	var got task
	w.ok("POST", server+"/reinstall", map[string]any{"operatingSystem": "debian12_64", "customizations": map[string]any{"hostname": "gra-1"},
		"storage": []any{map[string]any{"diskGroupId": 1, "partitioning": map[string]any{"disks": 2}}}}, &got)
	if status, data := w.call("GET", server+"/install/status", nil); status != 200 && status != 404 {
		w.t.Errorf("install/status: %d %s", status, data)
	}
	w.finish(got.TaskID)
	var said string
	w.ok("POST", server+"/terminate", nil, &said)
	w.ok("PUT", server, `{"bootId":1,"rescueSshKey":null,"bootScript":null}`, nil)
}

func (w *world) names() {
	const block = "/ip/198.19.1.11%2F32/reverse"
	w.ok("POST", block, map[string]string{"ipReverse": "198.19.1.11", "reverse": "gra-1.example.net"}, &struct{}{})
	w.read(block, block+"/198.19.1.11")
	w.ok("DELETE", block+"/198.19.1.11", nil, nil)
	w.ok("POST", "/me/sshKey", map[string]string{"keyName": "fleet", "key": publicKey}, nil)
	w.refused("POST", "/me/sshKey", map[string]string{"keyName": "fleet", "key": publicKey}, 409, "already used")
	w.read("/me/sshKey/fleet")
	w.ok("DELETE", "/me/sshKey/fleet", nil, nil)
}

func (w *world) buy() {
	at := w.fullCart()
	w.read(at, at+"/eco", at+"/eco?planCode=24sk10", at+"/eco/options?planCode=24sk10", at+"/checkout")
	var bought checkout
	w.ok("POST", at+"/checkout", nil, &bought)
	order := fmt.Sprintf("/me/order/%d", *bought.OrderID)
	w.read(order, order+"/status", order+"/details", order+"/paymentMethods", order+"/availableRegisteredPaymentMean")
	w.ok("POST", order+"/payWithRegisteredPaymentMean", map[string]any{"paymentMean": "CREDIT_CARD"}, nil)
	w.until("the order is delivered", func() bool { var s string; w.ok("GET", order+"/status", nil, &s); return s == "delivered" })
	w.read("/dedicated/server/" + w.delivered(order))
}

// wrongly makes calls that are refused: the errors' shape is held against what the provider's clients read.
func (w *world) wrongly() {
	w.refused("GET", "/dedicated/server/none", nil, 404, "Client::NotFound")
	w.refused("PUT", server, map[string]any{"bootId": 5}, 404, "must be on list")
	w.refused("PUT", server, map[string]any{"ip": "192.0.2.1"}, 400, "Client::BadRequest")
	stranger := w.client
	stranger.consumer = "stranger"
	stranger.refused("GET", server, nil, 403, "INVALID_CREDENTIAL")
	stranger = w.client
	stranger.secret = "stranger"
	stranger.refused("GET", server, nil, 400, "INVALID_SIGNATURE")
}
