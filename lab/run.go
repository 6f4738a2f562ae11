package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"popfleet/lab/faults"
	"popfleet/lab/hcloud"
	"popfleet/lab/impostor"
	"popfleet/lab/machine"
	"popfleet/lab/netns"
	"popfleet/lab/qemu"
	"popfleet/lab/reach"
	"popfleet/lab/rescue"
	"popfleet/lab/scripted"
	"popfleet/lab/socks"
)

// daemon is a running lab.
type daemon struct {
	cfg      Config
	deps     Deps
	faults   *faults.Set
	impostor *impostor.Impostor
	backend  machine.Backend
	release  func() // lets go of the backend; QEMU machines go on
	clouds
	net  *reach.Net
	ns   *netns.Namespace // nil for scripted machines
	down chan struct{}    // closed when everything was asked to be removed
}

// Run serves the lab until ctx ends or it is taken down over its control socket.
func Run(ctx context.Context, cfg Config, deps Deps) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("lab configuration: %w", err)
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return err
	}
	d := &daemon{cfg: cfg, deps: deps, faults: &faults.Set{}, down: make(chan struct{})}
	ls, err := d.listen()
	if err != nil {
		return err
	}
	defer ls.close()
	if err := d.open(ctx); err != nil {
		return err
	}
	defer d.close()
	return d.serve(ctx, ls)
}

// open makes the backend, the clouds before it, and the way to their machines.
func (d *daemon) open(ctx context.Context) error {
	err := d.openBackend(ctx)
	if err != nil {
		return err
	}
	if d.clouds, err = d.openClouds(ctx); err != nil {
		d.release()
		return err
	}
	if d.impostor, err = impostor.New(); err != nil {
		return err
	}
	d.net = reach.New(reach.Servers(d.servers), d.faults, d.impostor)
	d.net.Route(netns.Lab, d.own())
	return nil
}

func (d *daemon) openBackend(ctx context.Context) error {
	if d.cfg.Scripted {
		// Quick, but slow enough to be watched.
		pace := time.Duration(float64(time.Second) / d.cfg.Speed)
		b := scripted.New(ctx, scripted.Options{Faults: d.faults, Log: d.deps.Log, Timing: scripted.Timing{
			BootRescue: 2 * pace, BootDisk: 2 * pace, BootSystem: 3 * pace, Unlock: pace / 2, Step: pace / 4, Panic: 60 * pace,
		}})
		d.backend, d.release = b, b.Close
		return nil
	}
	ns, err := netns.Create(ctx, d.cfg.Namespace)
	if err != nil {
		return err
	}
	b, err := qemu.New(ctx, qemu.Options{
		Dir: d.cfg.machineDir(), Namespace: ns, Accel: d.cfg.Accel, Durable: d.cfg.Durable, Log: d.deps.Log,
		Rescue: rescue.Options{CacheDir: d.cfg.CacheDir, Progress: d.deps.Progress},
	})
	if err != nil {
		return err
	}
	d.backend, d.ns = b, ns
	d.release = func() {
		if err := b.Close(); err != nil {
			d.deps.Log.Error("let go of machines", "error", err)
		}
	}
	return nil
}

func (d *daemon) close() {
	d.net.Close()
	d.clouds.close()
	d.release()
}

func (d *daemon) actionTime(command string) time.Duration {
	return time.Duration(float64(hcloud.Realistic(command)) / d.cfg.Speed)
}

func (d *daemon) hardware(t hcloud.ServerType) hcloud.Hardware {
	h := t.Hardware()
	h.CPUs, h.MemoryMB, h.DiskGB = d.cfg.CPUs, d.cfg.MemoryMB, min(h.DiskGB, d.cfg.DiskGB)
	return h
}

// own is the way to the lab's own address, where a controller may live: in the machines' network, or on this host when
// machines are played.
func (d *daemon) own() reach.Dialer {
	if d.ns != nil {
		return inside{d.ns}
	}
	return loopback{}
}

type loopback struct{}

func (loopback) Dial(ctx context.Context, port uint16) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
}

type inside struct{ ns *netns.Namespace }

func (i inside) Dial(ctx context.Context, port uint16) (net.Conn, error) {
	return i.ns.Dial(ctx, "tcp", fmt.Sprintf("%s:%d", netns.Lab, port))
}

// listeners are opened before anything slow begins, so that a taken port is told at once.
type listeners struct{ api, robot, ovh, socks, forward, control net.Listener }

func (d *daemon) listen() (ls listeners, err error) {
	defer func() {
		if err != nil {
			ls.close()
		}
	}()
	if ls.control, err = listenControl(d.cfg.Socket()); err != nil {
		return ls, err
	}
	for _, l := range []struct {
		what, addr string
		to         *net.Listener
	}{{"api", d.cfg.API, &ls.api}, {"robot-api", only(d.cfg.RobotAPI, d.cfg.Robot), &ls.robot},
		{"ovh-api", only(d.cfg.OVHAPI, d.cfg.OVH), &ls.ovh}, {"socks", d.cfg.Socks, &ls.socks}, {"forward", d.cfg.Forward, &ls.forward}} {
		if l.addr == "" {
			continue
		}
		if *l.to, err = net.Listen("tcp", l.addr); err != nil {
			return ls, fmt.Errorf("lab %s listener: %w (choose another with --%s)", l.what, err, l.what)
		}
		if !(*l.to).Addr().(*net.TCPAddr).IP.IsLoopback() {
			return ls, fmt.Errorf("lab %s listener %s: the lab serves on loopback only", l.what, l.addr)
		}
	}
	return ls, nil
}

// only is the address where there are machines behind it.
func only(addr string, machines int) string {
	if machines == 0 {
		return ""
	}
	return addr
}

func (ls listeners) close() {
	for _, l := range []net.Listener{ls.api, ls.robot, ls.ovh, ls.socks, ls.forward, ls.control} {
		if l != nil {
			_ = l.Close() // closed already by its server, most often
		}
	}
}

func (d *daemon) serve(ctx context.Context, ls listeners) error {
	g, ctx := errgroup.WithContext(ctx)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g.Go(func() error { return serveHTTP(ctx, ls.api, d.cloud.Handler(), d.deps.Log) })
	if ls.robot != nil {
		g.Go(func() error { return serveHTTP(ctx, ls.robot, d.robot.Handler(), d.deps.Log) })
	}
	if ls.ovh != nil {
		g.Go(func() error { return serveHTTP(ctx, ls.ovh, d.ovh.Handler(), d.deps.Log) })
	}
	status := d.status(ls)
	g.Go(func() error { return serveHTTP(ctx, ls.control, d.control(status), d.deps.Log) })
	g.Go(func() error {
		return (&socks.Server{Dial: d.net.DialAddr, Log: d.deps.Log}).Serve(ctx, ls.socks)
	})
	if ls.forward != nil {
		g.Go(func() error { return d.forward(ctx, ls.forward) })
	}
	if d.deps.Ready != nil {
		d.deps.Ready(status())
	}
	g.Go(func() error {
		select {
		case <-ctx.Done():
		case <-d.down:
			cancel()
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return err
	}
	return d.removeIfDown()
}

// lastAnswers is how long a server that ends has for what it was asked: "down" itself is such a question.
const lastAnswers = 2 * time.Second

func serveHTTP(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastAnswers)
		defer cancel()
		if srv.Shutdown(end) != nil {
			srv.Close()
		}
	})
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	<-ended
	return nil
}
