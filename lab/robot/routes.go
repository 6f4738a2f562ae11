package robot

// calls is the whole of what is simulated.
func calls() []call {
	ofServer := form{optional: []string{"server_ip"}}
	return []call{
		{name: "list_servers", method: "GET", path: "/server", class: "server", do: (*Robot).listServers},
		{name: "get_server", method: "GET", path: "/server/{number}", class: "server", do: onServer((*Robot).getServer)},
		{name: "rename_server", method: "POST", path: "/server/{number}", class: "server",
			form: form{required: []string{"server_name"}}, do: onServer((*Robot).renameServer)},

		{name: "list_ips", method: "GET", path: "/ip", class: "ip", query: ofServer, do: (*Robot).listIPs},
		{name: "get_ip", method: "GET", path: "/ip/{ip}", class: "ip", do: (*Robot).getIP},
		{name: "list_subnets", method: "GET", path: "/subnet", class: "ip", query: ofServer, do: (*Robot).listSubnets},
		{name: "get_subnet", method: "GET", path: "/subnet/{net}", class: "ip", do: (*Robot).getSubnet},

		{name: "list_resets", method: "GET", path: "/reset", class: "reset", do: (*Robot).listResets},
		{name: "get_reset", method: "GET", path: "/reset/{number}", class: "reset", do: onServer((*Robot).getReset)},
		{name: "reset_server", method: "POST", path: "/reset/{number}", class: "reset_post", failure: "RESET_FAILED",
			form: form{required: []string{"type"}}, do: (*Robot).reset},
		{name: "get_wol", method: "GET", path: "/wol/{number}", class: "wol", do: onServer((*Robot).getWOL)},
		{name: "send_wol", method: "POST", path: "/wol/{number}", class: "wol_post", failure: "WOL_FAILED", do: (*Robot).sendWOL},

		{name: "get_boot", method: "GET", path: "/boot/{number}", class: "boot", do: onServer((*Robot).getBoot)},
		{name: "get_rescue", method: "GET", path: "/boot/{number}/rescue", class: "boot", do: onServer((*Robot).getRescue)},
		{name: "activate_rescue", method: "POST", path: "/boot/{number}/rescue", class: "boot", failure: "BOOT_ACTIVATION_FAILED",
			form: form{required: []string{"os"}, optional: []string{"arch", "keyboard"}, lists: []string{"authorized_key"}},
			do:   onServer((*Robot).activateRescue)},
		{name: "deactivate_rescue", method: "DELETE", path: "/boot/{number}/rescue", class: "boot", failure: "BOOT_DEACTIVATION_FAILED",
			do: onServer((*Robot).deactivateRescue)},
		{name: "last_rescue", method: "GET", path: "/boot/{number}/rescue/last", class: "boot", do: onServer((*Robot).lastRescue)},

		{name: "list_rdns", method: "GET", path: "/rdns", class: "rdns", query: ofServer, do: (*Robot).listReverse},
		{name: "get_rdns", method: "GET", path: "/rdns/{ip}", class: "rdns", do: (*Robot).getReverse},
		{name: "create_rdns", method: "PUT", path: "/rdns/{ip}", class: "rdns", failure: "RDNS_CREATE_FAILED",
			form: form{required: []string{"ptr"}}, do: (*Robot).createReverse},
		{name: "update_rdns", method: "POST", path: "/rdns/{ip}", class: "rdns", failure: "RDNS_UPDATE_FAILED",
			form: form{required: []string{"ptr"}}, do: (*Robot).updateReverse},
		{name: "delete_rdns", method: "DELETE", path: "/rdns/{ip}", class: "rdns", failure: "RDNS_DELETE_FAILED", do: (*Robot).deleteReverse},

		{name: "list_keys", method: "GET", path: "/key", class: "key", do: (*Robot).listKeys},
		{name: "create_key", method: "POST", path: "/key", class: "key_write", failure: "KEY_CREATE_FAILED",
			form: form{required: []string{"name", "data"}}, do: (*Robot).createKey},
		{name: "get_key", method: "GET", path: "/key/{fingerprint}", class: "key", do: (*Robot).getKey},
		{name: "rename_key", method: "POST", path: "/key/{fingerprint}", class: "key_write", failure: "KEY_UPDATE_FAILED",
			form: form{required: []string{"name"}}, do: (*Robot).renameKey},
		{name: "delete_key", method: "DELETE", path: "/key/{fingerprint}", class: "key_write", failure: "KEY_DELETE_FAILED", do: (*Robot).deleteKey},

		{name: "list_products", method: "GET", path: "/order/server/product", class: "order", do: (*Robot).listProducts,
			query: form{optional: []string{"min_price", "max_price", "min_price_setup", "max_price_setup", "location"}}},
		{name: "get_product", method: "GET", path: "/order/server/product/{id}", class: "order", do: (*Robot).getProduct},
		{name: "list_transactions", method: "GET", path: "/order/server/transaction", class: "order", do: transactions(standard)},
		{name: "order_server", method: "POST", path: "/order/server/transaction", class: "order_post", form: orderForm("location"), do: order(standard)},
		{name: "get_transaction", method: "GET", path: "/order/server/transaction/{id}", class: "order", do: oneTransaction(standard)},
		{name: "list_market_products", method: "GET", path: "/order/server_market/product", class: "order", do: (*Robot).listOffers},
		{name: "get_market_product", method: "GET", path: "/order/server_market/product/{id}", class: "order", do: (*Robot).getOffer},
		{name: "list_market_transactions", method: "GET", path: "/order/server_market/transaction", class: "order", do: transactions(market)},
		{name: "order_market_server", method: "POST", path: "/order/server_market/transaction", class: "order_post", form: orderForm(), do: order(market)},
		{name: "get_market_transaction", method: "GET", path: "/order/server_market/transaction/{id}", class: "order", do: oneTransaction(market)},
	}
}

func orderForm(more ...string) form {
	return form{
		required: []string{"product_id"}, lists: []string{"authorized_key", "addon"},
		optional: append([]string{"password", "dist", "arch", "lang", "comment", "test"}, more...),
	}
}

// CallNames lists the names and routes by which faults can name a call.
func CallNames() []string {
	var out []string
	for _, k := range calls() {
		out = append(out, k.name+"  "+k.method+" "+k.path)
	}
	return out
}

func allNames() []string {
	var out []string
	for _, k := range calls() {
		out = append(out, k.names()...)
	}
	return out
}
