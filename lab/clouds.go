package lab

import (
	"context"
	"errors"
	"net/http"
	"time"

	"popfleet/lab/hcloud"
	"popfleet/lab/machine"
	"popfleet/lab/ovh"
	"popfleet/lab/rack"
	"popfleet/lab/robot"
)

// clouds are the providers of a lab. Hetzner Cloud is always there; the others where the lab has machines for them.
type clouds struct {
	cloud *hcloud.Cloud
	robot *robot.Robot
	ovh   *ovh.OVH
}

func (d *daemon) openClouds(ctx context.Context) (c clouds, err error) {
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	c.cloud, err = hcloud.New(ctx, hcloud.Options{
		Token: d.cfg.Token, Backend: d.backend, Faults: d.faults, StatePath: d.cfg.statePath("hcloud"),
		ActionTime: d.actionTime, Hardware: d.hardware, Log: d.deps.Log,
	})
	if err != nil {
		return c, err
	}
	hw := rack.Hardware{Firmware: d.cfg.Firmware, Disks: d.cfg.Disks, CPUs: d.cfg.CPUs, MemoryMB: d.cfg.MemoryMB, DiskGB: d.cfg.DiskGB, Bare: d.cfg.Bare}
	if d.cfg.Robot > 0 {
		c.robot, err = robot.New(ctx, robot.Options{
			User: robotUser, Password: d.cfg.Token, Backend: d.backend, Faults: d.faults, StatePath: d.cfg.statePath("robot"),
			Machines: rack.Robot(d.cfg.Robot, hw), Stock: rack.RobotStock(hw), Speed: d.cfg.Speed, Log: d.deps.Log,
		})
		if err != nil {
			return c, err
		}
	}
	if d.cfg.OVH > 0 {
		c.ovh, err = ovh.New(ctx, ovh.Options{
			ApplicationKey: ovhApplication, ApplicationSecret: d.cfg.ovhSecret(), ConsumerKey: d.cfg.ovhConsumer(),
			Backend: d.backend, Faults: d.faults, StatePath: d.cfg.statePath("ovh"), Log: d.deps.Log,
			Machines: rack.OVH(d.cfg.OVH, hw), Deliver: rack.OVHDelivery(hw),
			Delay: func(what string) time.Duration { return time.Duration(float64(ovh.Realistic(what)) / d.cfg.Speed) },
		})
	}
	return c, err
}

// each calls f for every provider there is.
func (c clouds) each(f func(provider)) {
	if c.cloud != nil {
		f(c.cloud)
	}
	if c.robot != nil {
		f(c.robot)
	}
	if c.ovh != nil {
		f(c.ovh)
	}
}

// provider is what the lab asks of any of them.
type provider interface {
	Handler() http.Handler
	Servers() []machine.Info
	Delete(ctx context.Context) error
	Close()
}

// servers are the machines of every provider.
func (c clouds) servers() (all []machine.Info) {
	c.each(func(p provider) { all = append(all, p.Servers()...) })
	return all
}

func (c clouds) close() { c.each(provider.Close) }

func (c clouds) delete(ctx context.Context) error {
	var errs []error
	c.each(func(p provider) { errs = append(errs, p.Delete(ctx)) })
	return errors.Join(errs...)
}

// Names of the lab's accounts. Every secret is another, so that two that are mixed up do not pass.
const (
	robotUser      = "lab-robot"
	ovhApplication = "lab-ovh"
)

func (c Config) ovhSecret() string   { return c.Token + "-secret" }
func (c Config) ovhConsumer() string { return c.Token + "-consumer" }

// env is what a fleet process needs to work with the providers that listen.
func (c Config) env(ls listeners) []string {
	out := []string{"HCLOUD_ENDPOINT=http://" + ls.api.Addr().String() + "/v1", "HCLOUD_TOKEN=" + c.Token}
	if ls.robot != nil {
		out = append(out, "HROBOT_ENDPOINT=http://"+ls.robot.Addr().String(), "HROBOT_USER="+robotUser, "HROBOT_PASSWORD="+c.Token)
	}
	if ls.ovh != nil {
		out = append(out, "OVH_ENDPOINT=http://"+ls.ovh.Addr().String()+"/1.0", "OVH_APPLICATION_KEY="+ovhApplication,
			"OVH_APPLICATION_SECRET="+c.ovhSecret(), "OVH_CONSUMER_KEY="+c.ovhConsumer())
	}
	return out
}
