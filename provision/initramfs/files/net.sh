# Sourced by fleet-unlock and by nothing else. fleet_net returns 0 when an address is set; it may be called again.
# /etc/fleet/net.conf, written by fleet-agent: MAC, ADDRESSES (CIDRs), GATEWAY4, GATEWAY6; empty ADDRESSES means DHCP.
MAC= ADDRESSES= GATEWAY4= GATEWAY6=
[ -e /etc/fleet/net.conf ] && . /etc/fleet/net.conf

# The interface is found by MAC: its name differs between rescue, initramfs and system. A machine whose board was
# exchanged has another MAC: after some tries a single physical interface is good enough to ask for the key on.
fleet_iface() {
	only= count=0
	for path in /sys/class/net/*; do
		name="${path##*/}"
		[ "$name" = lo ] && continue
		[ "$(cat "$path/address" 2>/dev/null)" = "$MAC" ] && { echo "$name"; return 0; }
		[ -e "$path/device" ] && { only="$name"; count=$((count + 1)); }
	done
	[ "${try:-0}" -ge 15 ] && [ "$count" = 1 ] && { echo "$only"; return 0; }
	return 1
}

fleet_net() {
	ip link set lo up
	iface="$(fleet_iface)" || return 1
	ip link set "$iface" up || return 1
	if [ -z "$ADDRESSES" ]; then
		fleet_dhcp "$iface"
		return
	fi
	echo 0 >"/proc/sys/net/ipv6/conf/$iface/accept_dad" 2>/dev/null
	for address in $ADDRESSES; do
		case "$address" in
		*:*) ip -6 addr add "$address" dev "$iface" 2>/dev/null ;;
		*) ip addr add "$address" dev "$iface" 2>/dev/null ;;
		esac
	done
	if [ -n "$GATEWAY4" ]; then
		ip route add "$GATEWAY4" dev "$iface" 2>/dev/null
		ip route add default via "$GATEWAY4" dev "$iface" 2>/dev/null
		ip route | grep -q '^default' || return 1
	fi
	[ -n "$GATEWAY6" ] && ip -6 route add default via "$GATEWAY6" dev "$iface" 2>/dev/null
	# what other initramfs scripts expect of a configured interface
	echo "DEVICE='$iface'" >"/run/net-$iface.conf"
	return 0
}

fleet_dhcp() {
	ipconfig -t 30 -c dhcp "$1" && [ -e "/run/net-$1.conf" ]
}

fleet_addresses() { echo "${ADDRESSES:-$(sed -n "s/^IPV4ADDR='\(.*\)'/\1/p" /run/net-*.conf 2>/dev/null)}"; }
