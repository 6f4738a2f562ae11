package ovh

const (
	onServerPath = "/dedicated/server/{serviceName}"
	onIPPath     = "/ip/{ip}"
	onCartPath   = "/order/cart/{cartId}"
	onItemPath   = onCartPath + "/item/{itemId}"
	onOrderPath  = "/me/order/{orderId}"
	onDetailPath = onOrderPath + "/details/{orderDetailId}"
)

// calls is the whole of what is simulated. Literal segments come before parameters.
func calls() []call {
	out := []call{
		{name: "auth_time", method: "GET", path: "/auth/time", open: true, handler: (*OVH).authTime},
		{name: "ask_credential", method: "POST", path: "/auth/credential", open: true, handler: (*OVH).askCredential},
	}
	for _, group := range [][]call{serverCalls(), addressCalls(), accountCalls(), orderCalls(), cartCalls(bareMetal), cartCalls(eco)} {
		out = append(out, group...)
	}
	return out
}

func serverCalls() []call {
	one := func(name, method, path string, do func(*OVH, *request, *server) (any, error), query ...string) call {
		return call{name: name, method: method, path: onServerPath + path, query: query, handler: onServer(do)}
	}
	return []call{
		{name: "availabilities", method: "GET", path: "/dedicated/server/datacenter/availabilities", open: true, handler: (*OVH).availabilities,
			query: []string{"datacenters", "excludeDatacenters", "gpu", "memory", "planCode", "server", "storage", "systemStorage"}},
		{name: "list_servers", method: "GET", path: "/dedicated/server", handler: onBooks((*OVH).listServers)},
		one("get_server", "GET", "", (*OVH).getServer),
		one("put_server", "PUT", "", (*OVH).putServer),
		one("list_boots", "GET", "/boot", (*OVH).listBoots, "bootType"),
		one("get_boot", "GET", "/boot/{bootId}", (*OVH).getBoot),
		one("reboot", "POST", "/reboot", (*OVH).reboot),
		one("list_tasks", "GET", "/task", (*OVH).listTasks, "function", "status"),
		one("get_task", "GET", "/task/{taskId}", (*OVH).getTask),
		one("cancel_task", "POST", "/task/{taskId}/cancel", (*OVH).cancelTask),
		one("install_status", "GET", "/install/status", (*OVH).installStatus),
		one("compatible_templates", "GET", "/install/compatibleTemplates", (*OVH).compatibleTemplates),
		one("reinstall", "POST", "/reinstall", (*OVH).reinstall),
		one("hardware", "GET", "/specifications/hardware", (*OVH).hardware),
		one("network", "GET", "/specifications/network", (*OVH).network),
		one("list_server_ips", "GET", "/ips", (*OVH).ips),
		{name: "service_infos", method: "GET", path: onServerPath + "/serviceInfos", handler: onBooks((*OVH).serviceInfos)},
		one("list_interventions", "GET", "/intervention", (*OVH).listInterventions),
		one("get_intervention", "GET", "/intervention/{interventionId}", (*OVH).getIntervention),
		one("terminate", "POST", "/terminate", (*OVH).terminate),
		one("confirm_termination", "POST", "/confirmTermination", (*OVH).confirmTermination),
	}
}

func addressCalls() []call {
	return []call{
		{name: "list_ips", method: "GET", path: "/ip", query: []string{"routedTo.serviceName"}, handler: onBooks((*OVH).listIPs)},
		{name: "get_ip", method: "GET", path: onIPPath, handler: onBooks((*OVH).getIP)},
		{name: "list_reverses", method: "GET", path: onIPPath + "/reverse", handler: onBooks((*OVH).listReverses)},
		{name: "set_reverse", method: "POST", path: onIPPath + "/reverse", handler: (*OVH).setReverse},
		{name: "get_reverse", method: "GET", path: onIPPath + "/reverse/{ipReverse}", handler: onBooks((*OVH).getReverse)},
		{name: "delete_reverse", method: "DELETE", path: onIPPath + "/reverse/{ipReverse}", handler: onBooks((*OVH).deleteReverse)},
	}
}

func accountCalls() []call {
	return []call{
		{name: "me", method: "GET", path: "/me", handler: onBooks((*OVH).me)},
		{name: "list_ssh_keys", method: "GET", path: "/me/sshKey", handler: onBooks((*OVH).listKeys)},
		{name: "add_ssh_key", method: "POST", path: "/me/sshKey", handler: onBooks((*OVH).addKey)},
		{name: "get_ssh_key", method: "GET", path: "/me/sshKey/{keyName}", handler: onBooks((*OVH).getKey)},
		{name: "delete_ssh_key", method: "DELETE", path: "/me/sshKey/{keyName}", handler: onBooks((*OVH).deleteKey)},
		{name: "list_payment_methods", method: "GET", path: "/me/payment/method", query: []string{"default", "paymentType", "status"}, handler: onBooks((*OVH).paymentMethods)},
		{name: "get_payment_method", method: "GET", path: "/me/payment/method/{paymentMethodId}", handler: onBooks((*OVH).paymentMethod)},
	}
}

func orderCalls() []call {
	one := func(name, method, path string, do func(*OVH, *request, *order) (any, error)) call {
		return call{name: name, method: method, path: path, handler: onOrder(do)}
	}
	return []call{
		{name: "list_orders", method: "GET", path: "/me/order", query: []string{"date.from", "date.to"}, handler: onBooks((*OVH).listOrders)},
		one("get_order", "GET", onOrderPath, (*OVH).getOrder),
		one("order_status", "GET", onOrderPath+"/status", (*OVH).orderStatus),
		one("list_order_details", "GET", onOrderPath+"/details", (*OVH).listDetails),
		one("get_order_detail", "GET", onDetailPath, (*OVH).getDetail),
		one("order_detail_extension", "GET", onDetailPath+"/extension", (*OVH).detailExtension),
		one("order_payment_methods", "GET", onOrderPath+"/paymentMethods", (*OVH).orderPaymentMethods),
		one("order_payment_means", "GET", onOrderPath+"/availableRegisteredPaymentMean", (*OVH).orderPaymentMeans),
		one("pay_order", "POST", onOrderPath+"/pay", (*OVH).payOrder),
		one("pay_order_with_mean", "POST", onOrderPath+"/payWithRegisteredPaymentMean", (*OVH).payWithMean),

		{name: "create_cart", method: "POST", path: "/order/cart", open: true, handler: onBooks((*OVH).createCart)},
		{name: "get_cart", method: "GET", path: onCartPath, handler: onBooks((*OVH).getCart)},
		{name: "delete_cart", method: "DELETE", path: onCartPath, handler: onBooks((*OVH).deleteCart)},
		{name: "assign_cart", method: "POST", path: onCartPath + "/assign", handler: onBooks((*OVH).assignCart)},
		{name: "preview", method: "GET", path: onCartPath + "/checkout", handler: onBooks((*OVH).preview)},
		{name: "checkout", method: "POST", path: onCartPath + "/checkout", handler: onBooks((*OVH).checkout)},
		{name: "get_item", method: "GET", path: onItemPath, handler: onBooks((*OVH).getItem)},
		{name: "required_configuration", method: "GET", path: onItemPath + "/requiredConfiguration", handler: onBooks((*OVH).requiredConfiguration)},
		{name: "list_configurations", method: "GET", path: onItemPath + "/configuration", query: []string{"label"}, handler: onBooks((*OVH).listConfigurations)},
		{name: "configure", method: "POST", path: onItemPath + "/configuration", handler: onBooks((*OVH).configure)},
	}
}

// cartCalls are those of one part of the catalog.
func cartCalls(product string) []call {
	at := onCartPath + "/" + product
	return []call{
		{name: "list_offers", method: "GET", path: at, query: []string{"planCode"}, handler: offers(product)},
		{name: "add_server", method: "POST", path: at, handler: addServer(product)},
		{name: "list_options", method: "GET", path: at + "/options", query: []string{"planCode"}, handler: options(product)},
		{name: "add_option", method: "POST", path: at + "/options", handler: addOption(product)},
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
