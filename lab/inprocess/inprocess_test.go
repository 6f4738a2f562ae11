package inprocess

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"
	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"popfleet/internal/dial"
	"popfleet/lab/faults"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// operator is the other side, written for this test from the protocol document.
type operator struct {
	t     *testing.T
	lab   *Lab
	key   ssh.Signer // the fleet key
	ca    ssh.Signer
	cert  ssh.Signer
	api   *hcloud.Client
	agent []byte
}

func newOperator(t *testing.T, l *Lab) *operator {
	o := &operator{t: t, lab: l, key: newKey(t), ca: newKey(t), agent: []byte("#!agent")}
	o.cert = certify(t, o.ca, newKey(t))
	o.api = hcloud.NewClient(hcloud.WithEndpoint(l.URL), hcloud.WithToken(l.Token),
		hcloud.WithPollOpts(hcloud.PollOpts{BackoffFunc: hcloud.ConstantBackoff(5 * time.Millisecond)}))
	return o
}

func newKey(t *testing.T) ssh.Signer {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	s, err := ssh.NewSignerFromKey(k)
	must(t, err)
	return s
}

func certify(t *testing.T, ca, key ssh.Signer) ssh.Signer {
	c := &ssh.Certificate{Key: key.PublicKey(), CertType: ssh.UserCert, ValidPrincipals: []string{"root"}, ValidBefore: ssh.CertTimeInfinity}
	must(t, c.SignCert(rand.Reader, ca))
	s, err := ssh.NewCertSigner(c, key)
	must(t, err)
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rescue rents a server and brings it into rescue.
func (o *operator) rescue(ctx context.Context, name string) *hcloud.Server {
	k, _, err := o.api.SSHKey.Create(ctx, hcloud.SSHKeyCreateOpts{Name: "k-" + name, PublicKey: string(ssh.MarshalAuthorizedKey(o.key.PublicKey()))})
	must(o.t, err)
	res, _, err := o.api.Server.Create(ctx, hcloud.ServerCreateOpts{
		Name: name, ServerType: &hcloud.ServerType{Name: "cx23"}, Image: &hcloud.Image{Name: "debian-12"},
		Location: &hcloud.Location{Name: "fsn1"}, StartAfterCreate: hcloud.Ptr(false), Labels: map[string]string{"fleet": "demo"},
	})
	must(o.t, err)
	must(o.t, o.api.Action.WaitFor(ctx, append(res.NextActions, res.Action)...))
	rr, _, err := o.api.Server.EnableRescue(ctx, res.Server, hcloud.ServerEnableRescueOpts{Type: hcloud.ServerRescueTypeLinux64, SSHKeys: []*hcloud.SSHKey{k}})
	must(o.t, err)
	must(o.t, o.api.Action.WaitFor(ctx, rr.Action))
	a, _, err := o.api.Server.Poweron(ctx, res.Server)
	must(o.t, err)
	must(o.t, o.api.Action.WaitFor(ctx, a))
	s, _, err := o.api.Server.GetByID(ctx, res.Server.ID)
	must(o.t, err)
	return s
}

func (o *operator) dial(ctx context.Context, addr string, auth ssh.Signer, pin string) (*ssh.Client, error) {
	d, err := dial.New(o.lab.SocksURL)
	must(o.t, err)
	for {
		c, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			select {
			case <-ctx.Done():
				return nil, err
			case <-time.After(5 * time.Millisecond):
				continue
			}
		}
		conn, chans, reqs, err := ssh.NewClientConn(c, addr, &ssh.ClientConfig{
			User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(auth)},
			HostKeyCallback: func(_ string, _ net.Addr, k ssh.PublicKey) error {
				got := string(ssh.MarshalAuthorizedKey(k))
				if pin != "" && got != pin+"\n" {
					return fmt.Errorf("host key %s is not the pinned one", got)
				}
				return nil
			},
		})
		if err != nil {
			c.Close()
			return nil, err
		}
		return ssh.NewClient(conn, chans, reqs), nil
	}
}

// exchange runs one request and returns the result or the error event's code.
func (o *operator) exchange(c *ssh.Client, op string, spec any, blobs map[string][]byte) (json.RawMessage, string) {
	s, err := c.NewSession()
	must(o.t, err)
	defer s.Close()
	in, err := s.StdinPipe()
	must(o.t, err)
	out, err := s.StdoutPipe()
	must(o.t, err)
	sum := sha256.Sum256(o.agent)
	d := hex.EncodeToString(sum[:])
	must(o.t, s.Start(fmt.Sprintf(`d=/run/fleet; f=$d/agent-%[1]s; b=/opt/fleet/blobs/%[1]s; t=$f.$$; umask 077; mkdir -p $d;
same() { echo "%[1]s  $t" | sha256sum -c --status -; };
if [ -x $f ]; then echo HAVE;
elif [ -f $b ] && cp $b $t && same; then chmod 700 $t; mv $t $f; echo HAVE;
else echo NEED; read -r n; head -c "$n" | gzip -dc >$t; same || { rm -f $t; echo BADDIGEST; exit 90; }; chmod 700 $t; mv $t $f; fi;
exec $f exchange`, d)))
	var first string
	fmt.Fscanln(out, &first)
	if first == "NEED" {
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		_, err := z.Write(o.agent)
		must(o.t, errors.Join(err, z.Close()))
		_, err = fmt.Fprintf(in, "%d\n%s", packed.Len(), packed.Bytes())
		must(o.t, err)
	}
	raw, err := json.Marshal(spec)
	must(o.t, err)
	fmt.Fprintf(in, `{"v":1,"id":7,"op":%q,"spec":%s}`+"\n", op, raw)
	dec := json.NewDecoder(out)
	for {
		var e struct {
			Kind  string
			Data  json.RawMessage
			Error *struct{ Code, Message string }
			Blobs []struct {
				SHA256 string
				Size   int64 `json:"size_bytes"`
			}
		}
		if err := dec.Decode(&e); err != nil {
			return nil, "cut: " + err.Error()
		}
		switch e.Kind {
		case "need":
			for _, b := range e.Blobs {
				fmt.Fprintf(in, `{"blob":%q,"size_bytes":%d}`+"\n", b.SHA256, b.Size)
				in.Write(blobs[b.SHA256])
			}
		case "result":
			return e.Data, ""
		case "error":
			return nil, e.Error.Code
		}
	}
}

func pemOf(t *testing.T) (text []byte, pub string) {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	block, err := ssh.MarshalPrivateKey(k, "")
	must(t, err)
	s, err := ssh.NewSignerFromKey(k)
	must(t, err)
	line := string(ssh.MarshalAuthorizedKey(s.PublicKey()))
	return pem.EncodeToMemory(block), line[:len(line)-1]
}

type installed struct {
	Wiped            []string `json:"wiped"`
	InitramfsHostKey string   `json:"initramfs_host_key"`
	SystemHostKey    string   `json:"system_host_key"`
}

var image = []byte("an image")

func (o *operator) installSpec() (map[string]any, map[string][]byte) {
	sum := sha256.Sum256(image)
	d := hex.EncodeToString(sum[:])
	return map[string]any{
		"version": 1, "node": "fsn-1", "fleet": "demo", "run": "run-1", "image": map[string]any{"sha256": d, "size_bytes": len(image)},
		"install_key": []byte("0123456789abcdef0123456789abcdef"), "user_ca": string(ssh.MarshalAuthorizedKey(o.ca.PublicKey())),
		"authorized_keys": []string{string(ssh.MarshalAuthorizedKey(o.key.PublicKey()))},
	}, map[string][]byte{d: image}
}

func (o *operator) unlock(ctx context.Context, addr, pin, pass string) (int, error) {
	c, err := o.dial(ctx, addr, o.key, pin)
	if err != nil {
		return -1, err
	}
	defer c.Close()
	s, err := c.NewSession()
	must(o.t, err)
	in, err := s.StdinPipe()
	must(o.t, err)
	must(o.t, s.Start("unlock"))
	_, err = in.Write([]byte(pass))
	must(o.t, err)
	in.Close()
	err = s.Wait()
	if x, ok := err.(*ssh.ExitError); ok {
		return x.ExitStatus(), nil
	}
	return 0, err
}

func TestWholeLifeOfANode(t *testing.T) {
	l := Start(t, Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	o := newOperator(t, l)
	s := o.rescue(ctx, "fsn-1")
	ip := s.PublicNet.IPv4.IP.String()
	if s.RescueEnabled {
		t.Error("rescue_enabled is true after the boot that used it up")
	}
	c, err := o.dial(ctx, ip+":22", o.key, "")
	must(t, err)
	spec, blobs := o.installSpec()
	raw, code := o.exchange(c, "install", spec, blobs)
	c.Close()
	if code != "" {
		t.Fatalf("install: %s", code)
	}
	var in installed
	must(t, json.Unmarshal(raw, &in))
	m := l.Machine(t, "fsn-1")
	if w := m.Ledger().Wipes(); len(w) != 1 || w[m.Serials()[0]] != 1 {
		t.Errorf("wipes = %v, want each disk once", w)
	}

	a, _, err := o.api.Server.Reset(ctx, s)
	must(t, err)
	must(t, o.api.Action.WaitFor(ctx, a))
	m.WithoutDoor() // Debian's own way: every wrong key costs a try
	if code, err := o.unlock(ctx, ip+":2222", in.InitramfsHostKey, "wrong"); code != 1 || err != nil {
		t.Fatalf("wrong passphrase: exit %d, %v", code, err)
	}
	if code, err := o.unlock(ctx, ip+":2222", in.InitramfsHostKey, "0123456789abcdef0123456789abcdef\n"); code != 1 || err != nil {
		t.Fatalf("passphrase with newline: exit %d, %v", code, err)
	}
	if code, err := o.unlock(ctx, ip+":2222", in.InitramfsHostKey, "0123456789abcdef0123456789abcdef"); code != 0 || err != nil {
		t.Fatalf("install key: exit %d, %v", code, err)
	}
	c, err = o.dial(ctx, ip+":22", o.cert, in.SystemHostKey)
	must(t, err)
	defer c.Close()
	initramfs, initramfsPub := pemOf(t)
	sys, sysPub := pemOf(t)
	machineKey := make([]byte, 32)
	rand.Read(machineKey)
	_, code = o.exchange(c, "seal", map[string]any{
		"version": 1, "node": "fsn-1", "install_key": []byte("0123456789abcdef0123456789abcdef"), "machine_key": machineKey,
		"recovery_key": []byte("correct horse"), "initramfs_host_key": initramfs, "system_host_key": sys,
	}, nil)
	if code != "" {
		t.Fatalf("seal: %s", code)
	}
	node := map[string]any{"version": 1, "name": "fsn-1", "files": []any{map[string]any{"path": "/etc/x", "mode": 0o644, "owner": "root", "group": "root", "content": []byte("x")}}}
	for i, want := range []string{`["file /etc/x"]`, `[]`} {
		raw, code = o.exchange(c, "apply", node, nil)
		var got struct{ Changed json.RawMessage }
		must(t, json.Unmarshal(raw, &got))
		if code != "" || string(got.Changed) != want {
			t.Errorf("apply %d: changed %s, want %s (%s)", i, got.Changed, want, code)
		}
	}
	_, code = o.exchange(c, "reboot", nil, nil)
	if code != "" {
		t.Fatalf("reboot: %s", code)
	}
	c.Close()
	if code, err := o.unlock(ctx, ip+":2222", initramfsPub, string(machineKey)); code != 0 || err != nil {
		t.Fatalf("machine key after reboot: exit %d, %v", code, err)
	}
	c2, err := o.dial(ctx, ip+":22", o.cert, sysPub)
	must(t, err)
	c2.Close()
	if !m.Ledger().Saw("dropbear", machineKey) || m.Ledger().Saw("rescue", machineKey) {
		t.Error("the ledger's account of where the machine key went is wrong")
	}
}

func TestImpostorOnUnlockPort(t *testing.T) {
	l := Start(t, Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	o := newOperator(t, l)
	s := o.rescue(ctx, "fsn-1")
	l.Faults.MustAdd(faults.Fault{Kind: faults.Impostor, Machine: "fsn-1", Port: 2222})
	_, pin := pemOf(t)
	if _, err := o.unlock(ctx, s.PublicNet.IPv4.IP.String()+":2222", pin, "secret"); err == nil {
		t.Fatal("unlock through an impostor succeeded")
	}
	if l.Impostor.Contacts() != 1 || l.Impostor.Logins() != 0 || len(l.Impostor.Heard()) != 0 {
		t.Errorf("impostor: %d contacts, %d logins, heard %q", l.Impostor.Contacts(), l.Impostor.Logins(), l.Impostor.Heard())
	}
	if _, err := o.unlock(ctx, s.PublicNet.IPv4.IP.String()+":2222", "", "secret"); err != nil {
		t.Fatal(err)
	}
	if string(l.Impostor.Heard()) == "" || l.Impostor.Logins() != 1 {
		t.Error("the impostor does not notice a client that trusts it: the test above can't fail")
	}
}

func hcloudRescue(k []*hcloud.SSHKey) hcloud.ServerEnableRescueOpts {
	return hcloud.ServerEnableRescueOpts{Type: hcloud.ServerRescueTypeLinux64, SSHKeys: k}
}
