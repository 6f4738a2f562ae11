// Package faults holds what goes wrong in the lab on demand: for one machine or all, one call or all, once, N times or
// until cleared. It is data and bookkeeping; the API simulators, the network and the scripted machines ask it at the
// places where a fault of a layer can strike, and act. It never causes anything by itself.
package faults

// Kind names one way in which something fails.
type Kind string

// Layers say who acts on a kind.
const (
	API     = "api"     // the provider's HTTP API, per call
	Machine = "machine" // how a machine starts, per boot or reset
	Net     = "net"     // connections to a machine, per connection and port
	Node    = "node"    // what a scripted machine's own software does
)

// The kinds. Their meaning is in [Kinds].
const (
	Locked              Kind = "locked"
	RateLimited         Kind = "rate-limited"
	BadGateway          Kind = "bad-gateway"
	Unavailable         Kind = "unavailable"
	GatewayTimeout      Kind = "gateway-timeout"
	ResourceUnavailable Kind = "resource-unavailable"
	Conflict            Kind = "conflict"
	Unauthorized        Kind = "unauthorized"
	ActionError         Kind = "action-error"
	ActionMissing       Kind = "action-missing"
	ReplyLost           Kind = "reply-lost"
	Hang                Kind = "hang"
	Slow                Kind = "slow"
	NoIPv4              Kind = "no-ipv4"

	LockOut           Kind = "lock-out"
	Busy              Kind = "busy"
	ClockSkew         Kind = "clock-skew"
	CredentialExpired Kind = "credential-expired"
	Expired           Kind = "expired-460"
	TaskMissing       Kind = "task-missing"
	TaskError         Kind = "task-error"
	TaskStuck         Kind = "task-stuck"
	TaskZero          Kind = "task-zero"

	RescueIgnored Kind = "rescue-ignored"
	ResetIgnored  Kind = "reset-ignored"
	BootHangs     Kind = "boot-hangs"
	RescueNever   Kind = "rescue-never"
	RescueSlow    Kind = "rescue-slow"
	DisksSwapped  Kind = "disks-swapped"
	DiskMissing   Kind = "disk-missing"

	HostKeyLate     Kind = "host-key-late"
	ResetTypeAbsent Kind = "reset-type-absent"
	ForeignActivity Kind = "foreign-activity"
	Invisible       Kind = "invisible"
	Intervention    Kind = "intervention"

	Refuse   Kind = "refuse"
	Silent   Kind = "silent"
	HalfOpen Kind = "half-open"
	Cut      Kind = "cut"
	Impostor Kind = "impostor"

	InstallFails    Kind = "install-fails"
	UnlockCut       Kind = "unlock-cut"
	AskpassTimeout  Kind = "askpass-timeout"
	UnlockTooEarly  Kind = "unlock-too-early"
	ServiceSick     Kind = "service-unhealthy"
	WrongNode       Kind = "wrong-node"
	SpontaneousBoot Kind = "spontaneous-reboot"

	OpFails Kind = "op-fails"
	OpHangs Kind = "op-hangs"
	OpCut   Kind = "op-cut"
	OpLost  Kind = "op-lost"
	OpLies  Kind = "op-lies"
)

// Description is a kind in words, with the fields of a Fault that matter to it besides Machine, Times and Skip.
type Description struct {
	Kind  Kind     `json:"kind"`
	Layer string   `json:"layer"`
	Text  string   `json:"text"`
	Uses  []string `json:"uses,omitempty"`
}

// Kinds lists every kind, in the order people read them.
func Kinds() []Description {
	call := []string{"call", "delay"}
	port := []string{"port", "delay"}
	return []Description{
		{Locked, API, "423 locked, before the call acts", call},
		{RateLimited, API, "429 rate_limit_exceeded with RateLimit headers, before the call acts", call},
		{BadGateway, API, "502 without a JSON body, before the call acts", call},
		{Unavailable, API, "503 unavailable, before the call acts", call},
		{GatewayTimeout, API, "504 timeout, before the call acts", call},
		{ResourceUnavailable, API, "resource_unavailable: error during placement, before the call acts", call},
		{Conflict, API, "409 conflict, before the call acts", call},
		{Unauthorized, API, "401 unauthorized although the token is right", call},
		{ActionError, API, "the call is accepted, its action ends in error and does nothing to the machine", call},
		{ActionMissing, API, "the call acts, but its action is never found again", call},
		{ReplyLost, API, "the call takes effect, then the connection is cut before any answer", call},
		{Hang, API, "no answer until the client gives up, or for 'for'; the call does not act", append(call, "for")},
		{Slow, API, "the answer comes late by 'for'; the call acts", append(call, "for")},
		{NoIPv4, API, "the server is created without a public IPv4 address", nil},
		{LockOut, API, "the source address is blocked after too many wrong passwords, for 'for', although the password is right", append(call, "for")},
		{Busy, API, "409: the provider is at work on it already, before the call acts", call},
		{ClockSkew, API, "the provider's clock is ahead by 'for'", []string{"for"}},
		{CredentialExpired, API, "the consumer key has expired", call},
		{Expired, API, "460: the service has expired", call},
		{TaskMissing, API, "the call's task is not found at first, for 'for'", append(call, "for")},
		{TaskError, API, "the call is accepted, its task ends in error (customerError with step 'customer', else ovhError)", append(call, "step")},
		{TaskStuck, API, "the call is accepted, its task stays in doing", call},
		{TaskZero, API, "the call answers with task 0, which is never found; nothing happens", call},
		{RescueIgnored, Machine, "the disk boots although rescue is enabled; rescue_enabled stays true", nil},
		{ResetIgnored, Machine, "a reset's action succeeds, the machine goes on as it was", nil},
		{BootHangs, Machine, "the machine is powered on and nothing ever answers, until the next start", nil},
		{RescueNever, Machine, "as boot-hangs, at starts into rescue only", nil},
		{RescueSlow, Machine, "the rescue system starts late by 'for' (default: 5m30s)", []string{"for"}},
		{DisksSwapped, Machine, "the machine starts with its two disks in the other order", nil},
		{DiskMissing, Machine, "the machine starts without disk 'disk' (0 or 1)", []string{"disk"}},
		{HostKeyLate, Machine, "the provider publishes the rescue system's host keys late by 'for'", []string{"for"}},
		{ResetTypeAbsent, Machine, "the server lacks the kind of reset 'step' (default: hw)", []string{"step"}},
		{ForeignActivity, Machine, "somebody else does what 'step' says to the server (default: enables rescue)", []string{"step"}},
		{Invisible, Machine, "the provider's API does not know the server, as when it is locked", nil},
		{Intervention, Machine, "the provider's staff opens an intervention", nil},
		{Refuse, Net, "connections are refused, for 'for' from the first one or until cleared", append(port, "for")},
		{Silent, Net, "connection attempts are never answered", append(port, "for")},
		{HalfOpen, Net, "the connection is accepted and then carries nothing in either direction", port},
		{Cut, Net, "the connection is cut after 'bytes' bytes from the machine", append(port, "bytes")},
		{Impostor, Net, "another machine with another host key answers and accepts any key and password", port},
		{InstallFails, Node, "the installer stops with an error at step 'step' (default: image)", []string{"step"}},
		{UnlockCut, Node, "the unlock succeeds and the connection is lost before the exit status", nil},
		{AskpassTimeout, Node, "cryptroot-unlock says 'Timeout reached while waiting for askpass'", nil},
		{UnlockTooEarly, Node, "cryptroot-unlock says 'Try again later'", nil},
		{ServiceSick, Node, "apply ends in service_unhealthy", nil},
		{WrongNode, Node, "the machine says it is another node", nil},
		{SpontaneousBoot, Node, "the machine reboots in the middle of an install or an apply", []string{"step"}},
		{OpFails, Node, "the machine answers an error to the request named 'step' and does nothing", []string{"step"}},
		{OpHangs, Node, "the machine never answers the request named 'step' and does nothing", []string{"step"}},
		{OpCut, Node, "the connection is cut before the request named 'step' is begun", []string{"step"}},
		{OpLost, Node, "the request named 'step' is carried out, then the connection is cut before the answer", []string{"step"}},
		{OpLies, Node, "the answer to the request named 'step' is untrue", []string{"step"}},
	}
}

// Layer returns the layer of k, "" when there is no such kind.
func Layer(k Kind) string {
	for _, d := range Kinds() {
		if d.Kind == k {
			return d.Layer
		}
	}
	return ""
}
