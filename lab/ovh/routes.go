package ovh

import "popfleet/lab/ovh/shop"

const (
	onServerPath = "/dedicated/server/{serviceName}"
	onIPPath     = "/ip/{ip}"
)

// calls is the whole of what is simulated. Literal segments come before parameters.
func calls() []call {
	out := []call{
		{name: "auth_time", method: "GET", path: "/auth/time", open: true, handler: (*OVH).authTime},
		{name: "ask_credential", method: "POST", path: "/auth/credential", open: true, handler: (*OVH).askCredential},
	}
	for _, group := range [][]call{shopCalls(), serverCalls(), addressCalls(), accountCalls()} {
		out = append(out, group...)
	}
	return out
}

func serverCalls() []call {
	one := func(name, method, path string, do func(*OVH, *request, *server) (any, error), query ...string) call {
		return call{name: name, method: method, path: onServerPath + path, query: query, handler: onServer(do)}
	}
	return []call{
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
	}
}

// shopCalls are those of lab/ovh/shop, with the books open.
func shopCalls() []call {
	var out []call
	for _, k := range shop.Calls() {
		do := func(o *OVH, r *request) (any, error) { return k.Handler(o.state.Shop, &r.Request) }
		out = append(out, call{name: k.Name, method: k.Method, path: k.Path, query: k.Query, open: k.Open, handler: onBooks(do)})
	}
	return out
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
