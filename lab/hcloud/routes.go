package hcloud

import (
	"net/http"
	"strings"
)

// calls is the whole of what is simulated. Names are those of the provider's action commands where there is one.
func calls() []call {
	return []call{
		{"list_servers", "GET", "/servers", (*Cloud).listServers},
		{"create_server", "POST", "/servers", (*Cloud).createServer},
		{"get_server", "GET", "/servers/{id}", (*Cloud).getServer},
		{"update_server", "PUT", "/servers/{id}", (*Cloud).updateServer},
		{"delete_server", "DELETE", "/servers/{id}", (*Cloud).deleteServer},
		{"list_server_actions", "GET", "/servers/{id}/actions", (*Cloud).serverActions},
		{"get_server_action", "GET", "/servers/{id}/actions/{action}", (*Cloud).serverAction},
		{"start_server", "POST", "/servers/{id}/actions/poweron", (*Cloud).powerOn},
		{"stop_server", "POST", "/servers/{id}/actions/poweroff", (*Cloud).powerOff},
		{"shutdown_server", "POST", "/servers/{id}/actions/shutdown", (*Cloud).shutdown},
		{"reboot_server", "POST", "/servers/{id}/actions/reboot", (*Cloud).reboot},
		{"reset_server", "POST", "/servers/{id}/actions/reset", (*Cloud).reset},
		{"enable_rescue", "POST", "/servers/{id}/actions/enable_rescue", (*Cloud).enableRescue},
		{"disable_rescue", "POST", "/servers/{id}/actions/disable_rescue", (*Cloud).disableRescue},
		{"change_dns_ptr", "POST", "/servers/{id}/actions/change_dns_ptr", (*Cloud).serverReverse},
		{"attach_to_network", "POST", "/servers/{id}/actions/attach_to_network", (*Cloud).attachNetwork},
		{"detach_from_network", "POST", "/servers/{id}/actions/detach_from_network", (*Cloud).detachNetwork},
		{"add_to_placement_group", "POST", "/servers/{id}/actions/add_to_placement_group", (*Cloud).joinGroup},
		{"remove_from_placement_group", "POST", "/servers/{id}/actions/remove_from_placement_group", (*Cloud).leaveGroup},
		{"change_protection", "POST", "/servers/{id}/actions/change_protection", (*Cloud).protectServer},
		{"list_actions", "GET", "/actions", (*Cloud).listActions},
		{"list_actions", "GET", "/servers/actions", (*Cloud).listActions},
		{"get_action", "GET", "/actions/{id}", (*Cloud).getAction},
		{"get_action", "GET", "/servers/actions/{id}", (*Cloud).getAction},
		{"get_action", "GET", "/firewalls/actions/{id}", (*Cloud).getAction},
		{"get_action", "GET", "/networks/actions/{id}", (*Cloud).getAction},

		{"list_ssh_keys", "GET", "/ssh_keys", (*Cloud).listKeys},
		{"create_ssh_key", "POST", "/ssh_keys", (*Cloud).createKey},
		{"get_ssh_key", "GET", "/ssh_keys/{id}", (*Cloud).getKey},
		{"update_ssh_key", "PUT", "/ssh_keys/{id}", (*Cloud).updateKey},
		{"delete_ssh_key", "DELETE", "/ssh_keys/{id}", (*Cloud).deleteKey},

		{"list_images", "GET", "/images", (*Cloud).listImages},
		{"get_image", "GET", "/images/{id}", (*Cloud).getImage},
		{"list_server_types", "GET", "/server_types", (*Cloud).listServerTypes},
		{"get_server_type", "GET", "/server_types/{id}", (*Cloud).getServerType},
		{"list_locations", "GET", "/locations", (*Cloud).listLocations},
		{"get_location", "GET", "/locations/{id}", (*Cloud).getLocation},

		{"list_networks", "GET", "/networks", (*Cloud).listNetworks},
		{"create_network", "POST", "/networks", (*Cloud).createNetwork},
		{"get_network", "GET", "/networks/{id}", (*Cloud).getNetwork},
		{"update_network", "PUT", "/networks/{id}", (*Cloud).updateNetwork},
		{"delete_network", "DELETE", "/networks/{id}", (*Cloud).deleteNetwork},
		{"list_network_actions", "GET", "/networks/{id}/actions", (*Cloud).networkActions},
		{"add_subnet", "POST", "/networks/{id}/actions/add_subnet", (*Cloud).addSubnet},
		{"delete_subnet", "POST", "/networks/{id}/actions/delete_subnet", (*Cloud).deleteSubnet},
		{"change_network_protection", "POST", "/networks/{id}/actions/change_protection", (*Cloud).protectNetwork},

		{"list_firewalls", "GET", "/firewalls", (*Cloud).listFirewalls},
		{"create_firewall", "POST", "/firewalls", (*Cloud).createFirewall},
		{"get_firewall", "GET", "/firewalls/{id}", (*Cloud).getFirewall},
		{"update_firewall", "PUT", "/firewalls/{id}", (*Cloud).updateFirewall},
		{"delete_firewall", "DELETE", "/firewalls/{id}", (*Cloud).deleteFirewall},
		{"list_firewall_actions", "GET", "/firewalls/{id}/actions", (*Cloud).firewallActions},
		{"set_firewall_rules", "POST", "/firewalls/{id}/actions/set_rules", (*Cloud).setRules},
		{"apply_firewall", "POST", "/firewalls/{id}/actions/apply_to_resources", (*Cloud).applyFirewall},
		{"remove_firewall", "POST", "/firewalls/{id}/actions/remove_from_resources", (*Cloud).removeFirewall},

		{"list_placement_groups", "GET", "/placement_groups", (*Cloud).listGroups},
		{"create_placement_group", "POST", "/placement_groups", (*Cloud).createGroup},
		{"get_placement_group", "GET", "/placement_groups/{id}", (*Cloud).getGroup},
		{"update_placement_group", "PUT", "/placement_groups/{id}", (*Cloud).updateGroup},
		{"delete_placement_group", "DELETE", "/placement_groups/{id}", (*Cloud).deleteGroup},

		{"list_primary_ips", "GET", "/primary_ips", (*Cloud).listPrimaryIPs},
		{"create_primary_ip", "POST", "/primary_ips", (*Cloud).createPrimaryIP},
		{"get_primary_ip", "GET", "/primary_ips/{id}", (*Cloud).getPrimaryIP},
		{"update_primary_ip", "PUT", "/primary_ips/{id}", (*Cloud).updatePrimaryIP},
		{"delete_primary_ip", "DELETE", "/primary_ips/{id}", (*Cloud).deletePrimaryIP},
		{"change_primary_ip_dns_ptr", "POST", "/primary_ips/{id}/actions/change_dns_ptr", (*Cloud).primaryIPReverse},
	}
}

// route finds the call and fills in the path's values. http.ServeMux would answer in its own words where nothing fits.
func (c *Cloud) route(r *http.Request) (call, bool) {
	path, ok := strings.CutPrefix(r.URL.Path, "/v1")
	if !ok {
		return call{}, false
	}
	got := strings.Split(strings.Trim(path, "/"), "/")
	for _, k := range calls() {
		if k.method == r.Method && fits(k.path, got, r) {
			return k, true
		}
	}
	return call{}, false
}

// fits compares segment by segment; {id} and {action} take digits only, so /servers/actions is no server.
func fits(pattern string, got []string, r *http.Request) bool {
	want := strings.Split(strings.Trim(pattern, "/"), "/")
	if len(want) != len(got) {
		return false
	}
	for i, w := range want {
		if strings.HasPrefix(w, "{") {
			if got[i] == "" || strings.Trim(got[i], "0123456789") != "" {
				return false
			}
		} else if w != got[i] {
			return false
		}
	}
	for i, w := range want {
		if strings.HasPrefix(w, "{") {
			r.SetPathValue(strings.Trim(w, "{}"), got[i])
		}
	}
	return true
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
