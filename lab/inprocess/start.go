package inprocess

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"

	"popfleet/lab/faults"
	"popfleet/lab/hcloud"
	"popfleet/lab/impostor"
	"popfleet/lab/ovh"
	"popfleet/lab/rack"
	"popfleet/lab/reach"
	"popfleet/lab/robot"
	"popfleet/lab/scripted"
	"popfleet/lab/socks"
)

// hostKeys are shared by all labs of a test binary: the matrices start a thousand of them.
var hostKeys robot.KeyPool

// stack is what was started, to be stopped in reverse.
type stack []func()

func (s *stack) push(f func()) { *s = append(*s, f) }

func (s *stack) unwind() {
	for i := len(*s) - 1; i >= 0; i-- {
		(*s)[i]()
	}
}

// start returns how to stop also what was started before an error. Before that, ctx has to end.
func start(ctx context.Context, o Options) (*Lab, func(), error) {
	set := &faults.Set{}
	l := &Lab{Token: token, Faults: set, Machines: scripted.New(ctx, scripted.Options{Timing: o.Timing, Faults: set, Log: o.Log})}
	s := &stack{l.Machines.Close}
	for _, open := range []func(context.Context, Options, *stack) error{l.openCloud, l.openRobot, l.openOVH, l.openNet} {
		if err := open(ctx, o, s); err != nil {
			return nil, s.unwind, err
		}
	}
	return l, s.unwind, nil
}

// openCloud, like the others, leaves a provider that is to be closed before its machines: a start that it holds ends so.
func (l *Lab) openCloud(ctx context.Context, o Options, s *stack) (err error) {
	l.Cloud, err = hcloud.New(ctx, hcloud.Options{
		Token: token, Backend: l.Machines, Faults: l.Faults, StatePath: o.StatePath, ActionTime: o.ActionTime,
		RatePerHour: o.RatePerHour, RescueExpires: o.RescueExpires, Log: o.Log,
	})
	if err != nil {
		return err
	}
	s.push(l.Cloud.Close)
	l.URL = serve(l.Cloud.Handler(), o.Wrap, s) + "/v1"
	return nil
}

func (l *Lab) openRobot(ctx context.Context, o Options, s *stack) (err error) {
	if o.Robot == 0 {
		return nil
	}
	l.Robot, err = robot.New(ctx, robot.Options{
		User: RobotUser, Password: RobotPassword, Backend: l.Machines, Faults: l.Faults, StatePath: beside(o.StatePath, "robot"),
		Machines: rack.Robot(o.Robot, o.Dedicated), Stock: rack.RobotStock(o.Dedicated), Delay: o.RobotDelay, RatePerHour: o.RobotRates,
		Keys: &hostKeys, Log: o.Log,
	})
	if err != nil {
		return err
	}
	s.push(l.Robot.Close)
	l.RobotURL = serve(l.Robot.Handler(), o.WrapRobot, s)
	return nil
}

func (l *Lab) openOVH(ctx context.Context, o Options, s *stack) (err error) {
	if o.OVH == 0 {
		return nil
	}
	l.OVH, err = ovh.New(ctx, ovh.Options{
		ApplicationKey: OVHApplicationKey, ApplicationSecret: OVHApplicationSecret, ConsumerKey: OVHConsumerKey,
		Backend: l.Machines, Faults: l.Faults, StatePath: beside(o.StatePath, "ovh"),
		Machines: rack.OVH(o.OVH, o.Dedicated), Deliver: rack.OVHDelivery(o.Dedicated), Delay: o.OVHDelay, Log: o.Log,
	})
	if err != nil {
		return err
	}
	s.push(l.OVH.Close)
	l.OVHURL = serve(l.OVH.Handler(), o.WrapOVH, s) + "/1.0"
	return nil
}

// beside names another provider's state file after Hetzner Cloud's; "" stays in memory.
func beside(path, provider string) string {
	if path == "" {
		return ""
	}
	return path + "." + provider
}

func serve(h http.Handler, wrap func(http.Handler) http.Handler, s *stack) string {
	if wrap != nil {
		h = wrap(h)
	}
	api := httptest.NewServer(h)
	s.push(func() {
		api.CloseClientConnections()
		api.Close()
	})
	return api.URL
}

// openNet makes the way from outside to the machines, and its door.
func (l *Lab) openNet(ctx context.Context, o Options, s *stack) (err error) {
	if l.Impostor, err = impostor.New(); err != nil {
		return err
	}
	l.Net = reach.New(reach.Servers(l.Servers), l.Faults, l.Impostor)
	s.push(l.Net.Close)
	door, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	l.SocksURL = "socks5://" + door.Addr().String()
	served := make(chan struct{})
	go func() {
		defer close(served)
		l.answer(ctx, door, o.Log)
	}()
	s.push(func() { <-served })
	return nil
}

func (l *Lab) answer(ctx context.Context, door net.Listener, log *slog.Logger) {
	s := &socks.Server{Dial: l.Net.DialAddr, Log: log}
	if err := s.Serve(ctx, door); err != nil {
		log.Error("lab socks server", "error", err)
	}
}
