package inventory

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// The checks of single words: names, addresses, keys.

const wantLabel = "want a DNS label: a–z, 0–9 and -, at most 63, no - at either end"

const (
	lower  = "abcdefghijklmnopqrstuvwxyz"
	digits = "0123456789"
)

// isLabel is RFC 1035 §2.3.1 as RFC 1123 §2.1 widened it, lower case only.
func isLabel(s string) bool {
	return s != "" && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-' && madeOf(s, lower+digits+"-")
}

func madeOf(s, alphabet string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return !strings.ContainsRune(alphabet, c) })
}

func isPoPName(s string) bool {
	return s != "" && len(s) <= 20 && strings.IndexByte(lower, s[0]) >= 0 && madeOf(s, lower+digits)
}

// isWord is what providers name types, places and images with, and a file name without surprises.
func isWord(s string) bool {
	return s != "" && len(s) <= 100 && s[0] != '-' && s[0] != '.' && madeOf(s, lower+digits+"-._")
}

func isServerNumber(s string) bool {
	return s != "" && len(s) <= 10 && s[0] != '0' && madeOf(s, digits)
}

// isServiceName: nothing in it may change the meaning of a URL that it is put into.
func isServiceName(s string) bool {
	return len(s) <= 253 && strings.Contains(s, ".") && !slices.ContainsFunc(strings.Split(s, "."), func(l string) bool { return !isLabel(l) })
}

func isEnvName(s string) bool {
	return s != "" && strings.IndexByte(digits, s[0]) < 0 && madeOf(s, lower+strings.ToUpper(lower)+digits+"_")
}

func isControl(c rune) bool { return c < ' ' || c == 0x7f || c == 0xfffd }

func isPlain(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || isControl(c) })
}

func checkLabel(r *report, field, s string) {
	if s != "" && !isLabel(s) {
		r.add(field, fmt.Sprintf("%q is not a name", s), wantLabel)
	}
}

func checkDomain(r *report, field, s string) {
	const want = "want a name of two or more labels such as example.com"
	switch {
	case strings.HasSuffix(s, "."):
		r.add(field, fmt.Sprintf("%q ends in a dot", s), "write it without")
	case s != strings.ToLower(s):
		r.add(field, fmt.Sprintf("%q has capitals", s), "write it in lower case")
	case strings.ContainsFunc(s, func(c rune) bool { return c > 0x7e }):
		r.add(field, fmt.Sprintf("%q is not ASCII", s), "write an international name in its xn-- form")
	case !isDomain(s):
		r.add(field, fmt.Sprintf("%q is not a domain name", s), want)
	}
}

// isDomain leaves room for a node's label in front: 253 characters in all (RFC 1035 §2.3.4) less 64.
func isDomain(s string) bool {
	labels := strings.Split(s, ".")
	return len(s) <= 253-64 && len(labels) >= 2 && !slices.ContainsFunc(labels, func(l string) bool { return !isLabel(l) })
}

// checkEndpoint refuses plain http to another machine: the provider's token would travel in clear.
func checkEndpoint(r *report, field, s string) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		r.add(field, "is not the address of an API", "want https://host/path")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		r.add(field, "holds more than scheme, host and path", "a token comes from the environment or from token_command")
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		r.add(field, "would send the provider's token in clear", "want https; http is for an API on this machine")
	}
}

func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// sshKeyTypes are those that Debian's sshd accepts and that are worth accepting (RFC 8709, RFC 5656, OpenSSH PROTOCOL.u2f).
var sshKeyTypes = []string{
	"ssh-ed25519", "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com",
	"ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa",
}

func checkSSHKey(r *report, field, s string) {
	const want = "want the one line of a .pub file, such as: ssh-ed25519 AAAA… name"
	if strings.Contains(s, "PRIVATE KEY") {
		r.add(field, "is a private key", "remove it, make a new one, and put the line of its .pub file here")
		return
	}
	words := strings.Fields(s)
	if len(words) < 2 || strings.ContainsFunc(s, isControl) {
		r.add(field, "is not a public SSH key", want)
		return
	}
	if !slices.Contains(sshKeyTypes, words[0]) {
		r.add(field, fmt.Sprintf("key type %q is not accepted", words[0]), "want one of "+strings.Join(sshKeyTypes, ", "))
		return
	}
	if !isSSHBlob(words[0], words[1]) {
		r.add(field, "the key's data is damaged", want)
	}
}

// isSSHBlob reports whether the base64 text is an SSH wire value that begins with its type (RFC 4253 §6.6) and goes on.
func isSSHBlob(kind, text string) bool {
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(data) < 4 {
		return false
	}
	n := binary.BigEndian.Uint32(data)
	rest := data[4:]
	return uint64(n) < uint64(len(rest)) && string(rest[:n]) == kind && len(rest)-int(n) >= 4+32
}

// checkMongoURI checks by hand: a list of hosts with ports is no URL to net/url.
func checkMongoURI(r *report, field, s string) {
	const want = "want \"embedded\" or mongodb://host:port[,host:port]/…"
	rest, ok := strings.CutPrefix(s, "mongodb://")
	srv := false
	if !ok {
		rest, srv = strings.CutPrefix(s, "mongodb+srv://")
	}
	if !ok && !srv || !isPlain(s) {
		r.add(field, "is not a MongoDB address", want)
		return
	}
	authority, _, _ := strings.Cut(rest, "/")
	authority, _, _ = strings.Cut(authority, "?")
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		if strings.Contains(authority[:i], ":") {
			r.add(field, "holds a password", "the fleet file is no place for one: let the database authenticate by certificate or listen on the node only")
			return
		}
		authority = authority[i+1:]
	}
	for host := range strings.SplitSeq(authority, ",") {
		if !isMongoHost(host, srv) {
			r.add(field, fmt.Sprintf("%q is not a host", host), want)
		}
	}
}

func isMongoHost(s string, srv bool) bool {
	host, port := s, ""
	if strings.HasPrefix(s, "[") || strings.Contains(s, ":") {
		var err error
		if host, port, err = net.SplitHostPort(s); err != nil || srv {
			return false
		}
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return false
		}
	}
	_, err := netip.ParseAddr(host)
	return err == nil || isLabel(host) || isDomain(strings.ToLower(host))
}
