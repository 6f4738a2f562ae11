package stack

import (
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"

	"popfleet/provision/hetznercloud"
	"popfleet/provision/provider"
)

// object is any resource of ours inside the inline program.
type object struct {
	pulumi.CustomResourceState
	Addr4 pulumi.StringOutput `pulumi:"addr4"`
	Addr6 pulumi.StringOutput `pulumi:"addr6"`
}

// program registers everything wanted that may be registered; Pulumi works out the rest.
func program(w Wanted, may func(kind, at, key string) bool) pulumi.RunFunc {
	return func(ctx *pulumi.Context) error {
		b := &builder{ctx: ctx, may: may, objects: map[string]*object{}}
		if w.cloud() {
			b.add("SSHKey", "ssh-key", pulumi.Map{"name": pulumi.String(w.SSHKey.Name),
				"publicKey": pulumi.String(w.SSHKey.PublicKey), "labels": labels(w.SSHKey.Labels)})
			b.add("Firewall", "firewall", pulumi.Map{"name": pulumi.String(w.Firewall.Name),
				"rules": rules(w.Firewall.Rules), "labels": labels(w.Firewall.Labels)})
		}
		for _, n := range w.Networks {
			b.add("Network", n.Labels[hetznercloud.LabelKey], pulumi.Map{"name": pulumi.String(n.Name),
				"range": pulumi.String(n.Range), "subnet": pulumi.String(n.Subnet), "zone": pulumi.String(n.Zone),
				"labels": labels(n.Labels)})
		}
		for _, g := range w.PlacementGroups {
			b.add("PlacementGroup", g.Labels[hetznercloud.LabelKey], pulumi.Map{"name": pulumi.String(g.Name),
				"labels": labels(g.Labels)})
		}
		for _, s := range w.Servers {
			b.server(s)
		}
		for _, s := range w.Dedicated {
			b.dedicated(w.Fleet, s)
		}
		return b.err
	}
}

// builder registers resources and keeps the first error.
type builder struct {
	ctx     *pulumi.Context
	may     func(kind, at, key string) bool
	objects map[string]*object
	err     error
}

// add returns nil for what may not be registered now.
func (b *builder) add(kind, key string, props pulumi.Map) *object {
	at, _ := props["provider"].(pulumi.String)
	if b.err != nil || !b.may(kind, string(at), key) {
		return nil
	}
	o := &object{}
	props["key"] = pulumi.String(key)
	b.err = b.ctx.RegisterResource(token(kind), key, props, o)
	b.objects[key] = o
	return o
}

func (b *builder) server(s Server) {
	if b.err != nil {
		return
	}
	props := pulumi.Map{
		"node": pulumi.String(s.Node), "name": pulumi.String(s.Name), "serverType": pulumi.String(s.ServerType),
		"location": pulumi.String(s.Location), "image": pulumi.String(s.Image), "labels": labels(s.Labels),
		"sshKeys": b.ids("ssh-key"), "firewalls": b.ids("firewall"), "networks": b.ids(s.Network),
	}
	if g := b.objects[s.PlacementGroup]; g != nil {
		props["placementGroup"] = g.ID()
	}
	if s.Elsewhere != nil {
		props["elsewhere"] = elsewhere(s.Elsewhere)
	}
	b.reverse(b.add("Server", s.Key(), props), s.Node, "", s.Reverse)
}

func (b *builder) dedicated(fleet string, s Dedicated) {
	o := b.add("DedicatedServer", s.Key(), pulumi.Map{"node": pulumi.String(s.Node), "provider": pulumi.String(s.Provider),
		"server": pulumi.String(s.Server), "fleet": pulumi.String(fleet)})
	b.reverse(o, s.Node, s.Provider, s.Reverse)
}

func (b *builder) reverse(o *object, node, at, name string) {
	if b.err != nil || o == nil || name == "" {
		return
	}
	for key, ip := range map[string]pulumi.StringOutput{"reverse4.": o.Addr4, "reverse6.": o.Addr6} {
		props := pulumi.Map{"node": pulumi.String(node), "server": o.ID(), "ip": ip, "name": pulumi.String(name)}
		if at != "" {
			props["provider"] = pulumi.String(at)
		}
		b.add("ReverseDNS", key+node, props)
	}
}

func elsewhere(places []provider.Place) pulumi.Array {
	out := pulumi.Array{}
	for _, p := range places {
		out = append(out, pulumi.Map{"serverType": pulumi.String(p.Type), "location": pulumi.String(p.Location)})
	}
	return out
}

// ids lists the ids of the objects with these keys; unknown keys are left out.
func (b *builder) ids(keys ...string) pulumi.Array {
	out := pulumi.Array{}
	for _, k := range keys {
		if o := b.objects[k]; o != nil {
			out = append(out, o.ID())
		}
	}
	return out
}

func labels(m map[string]string) pulumi.StringMap {
	out := pulumi.StringMap{}
	for k, v := range m {
		out[k] = pulumi.String(v)
	}
	return out
}

func rules(list []hetznercloud.Rule) pulumi.Array {
	out := pulumi.Array{}
	for _, r := range list {
		out = append(out, pulumi.Map{"protocol": pulumi.String(r.Protocol), "port": pulumi.String(r.Port),
			"description": pulumi.String(r.Description)})
	}
	return out
}
