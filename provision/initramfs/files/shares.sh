# Sourced by fleet-door and by nothing else, when another node's key logged in. That node may do one thing: hand over its
# share of the peers' key. A share is kept in the initramfs' own root, which is memory and is emptied before the system
# takes over; when enough are there they are put together, and the door goes on with the key as with any other.
#  - a share counts when it is the one that was committed to for this very peer, in a generation known here: anything
#    else is named, kept out, and uses up nothing;
#  - two peers at once need no lock: a share appears whole by its rename, and whoever sees enough of them goes on;
#  - nothing here needs a clock.
# docs/protocols/peer-unlock.md draws the texts; the same in Go is internal/shares.
peers="$root/etc/fleet/peers"
kept="$root/fleet-shares"

# a·b in GF(2^8), into p
mul() {
	a=$1 b=$2 p=0
	while [ "$b" -gt 0 ]; do
		[ $((b & 1)) = 1 ] && p=$((p ^ a))
		a=$((a << 1))
		[ "$a" -gt 255 ] && a=$((a ^ 283))
		b=$((b >> 1))
	done
}

# 1/x, which is x^254, into p
invert() {
	p=1 n=0
	while [ "$n" -lt 254 ]; do
		mul "$p" "$1"
		n=$((n + 1))
	done
}

# Lagrange's coefficient of share $1 among the shares $2…, at 0, into p
coefficient() {
	mine=$1
	shift
	l=1
	for other; do
		[ "$other" = "$mine" ] && continue
		invert $((other ^ mine))
		mul "$p" "$other"
		mul "$p" "$l"
		l=$p
	done
	p=$l
}

# adds $1 times the bytes $2 (hex) to the numbers in total
add() {
	hex=$2 out=
	for byte in $total; do
		rest="${hex#??}"
		mul "$1" "$((0x${hex%"$rest"}))"
		out="$out $((byte ^ p))"
		hex="$rest"
	done
	total="$out"
}

digest() {
	printf '%s' "$1" | sha256sum | { read -r hash rest; echo "$hash"; }
}

refuse() {
	say "$1; no try was used"
	exit 65
}

# What the commitments say of share $1 of generation $2: its peer and its digest.
promised() {
	while read -r word g i who what; do
		[ "$word $g $i" = "share $2 $1" ] && echo "$who $what" && return 0
	done <"$peers"
	return 1
}

# What they say of generation $1: its threshold and the digest of its key.
generation() {
	while read -r word g need what; do
		[ "$word $g" = "generation $1" ] && echo "$need $what" && return 0
	done <"$peers"
	return 1
}

# Takes the line of peer $1, keeps it when it is right, and leaves the key of the peers in key when enough are there.
# Otherwise it ends the script.
take_share() {
	set -f
	peer=$1 node=
	read -r word version node <"$peers" 2>/dev/null || refuse "wrong share: no shares are expected here"
	case "$key" in *[!a-z0-9\ -]*) refuse "wrong share: peer $peer sent something else" ;; esac
	set -- $key
	[ "$#" = 6 ] && [ "$*" = "$key" ] && [ "$1 $2 $3" = "popfleet-share 1 $node" ] && [ "${#6}" = 64 ] ||
		refuse "wrong share: peer $peer sent something else"
	gen=$4 index=$5 value=$6
	terms="$(generation "$gen")" || refuse "stale share: generation $gen of peer $peer is not known here"
	promise="$(promised "$index" "$gen")" || refuse "wrong share: there is no share $index in generation $gen"
	[ "${promise%% *}" = "$peer" ] || refuse "wrong share: share $index is not peer $peer's"
	[ "${promise#* }" = "$(digest "$key")" ] || refuse "wrong share: that of peer $peer is not what was committed to"
	[ ! -e "$state/opened" ] || { say "it has been opened: set up successfully"; exit 0; }
	[ ! -e "$state/dead.$gen" ] || refuse "dead shares: generation $gen opens no key slot"
	mkdir -p -m 700 "$kept" && printf '%s\n' "$value" >"$kept/new.$$" && mv "$kept/new.$$" "$kept/$gen.$index" || {
		say "the share could not be kept; try again later"
		exit 75
	}
	join_shares "${terms%% *}" "${terms#* }"
}

# $1 shares make a key with the digest $2.
join_shares() {
	have= count=0 i=1
	while [ "$i" -le 16 ] && [ "$count" -lt "$1" ]; do
		[ -s "$kept/$gen.$i" ] && have="$have $i" count=$((count + 1))
		i=$((i + 1))
	done
	if [ "$count" -lt "$1" ]; then
		say "share kept: $count of $1"
		exit 0
	fi
	total="0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0"
	for x in $have; do
		read -r value <"$kept/$gen.$x"
		coefficient "$x" $have
		add "$p" "$value"
	done
	key="$(printf '%02x' $total)"
	total= value=
	[ "$(digest "popfleet-peer-key 1 $node $gen $key")" = "$2" ] || {
		: >"$state/dead.$gen"
		refuse "dead shares: those of generation $gen do not make the key that was committed to"
	}
}
