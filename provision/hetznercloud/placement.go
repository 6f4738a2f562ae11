package hetznercloud

import (
	"context"
	"strconv"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"
)

// PlacementGroupSpec is a group whose servers the provider keeps on different hosts; it holds at most ten.
type PlacementGroupSpec struct {
	Name   string
	Labels map[string]string
}

// PlacementGroup is a placement group as the project holds it.
type PlacementGroup struct {
	ID     string
	Name   string
	Labels map[string]string
}

// EnsurePlacementGroup returns the spread group with spec's labels, and creates it when there is none.
func (d *Driver) EnsurePlacementGroup(ctx context.Context, spec PlacementGroupSpec) (PlacementGroup, error) {
	g, err := ensure(ctx, d, d.placementGroups(spec), spec.Name, spec.Labels)
	if err != nil {
		return PlacementGroup{}, err
	}
	return placementGroupOf(g), nil
}

func (d *Driver) placementGroups(spec PlacementGroupSpec) kind[hcloud.PlacementGroup] {
	return kind[hcloud.PlacementGroup]{
		name: "placement group",
		list: func(ctx context.Context, sel string) ([]*hcloud.PlacementGroup, error) {
			return d.client.PlacementGroup.AllWithOpts(ctx, hcloud.PlacementGroupListOpts{ListOpts: hcloud.ListOpts{LabelSelector: sel}})
		},
		byName: func(ctx context.Context, name string) (*hcloud.PlacementGroup, error) {
			g, _, err := d.client.PlacementGroup.GetByName(ctx, name)
			return g, err
		},
		create: func(ctx context.Context) (*hcloud.PlacementGroup, []*hcloud.Action, error) {
			res, _, err := d.client.PlacementGroup.Create(ctx, hcloud.PlacementGroupCreateOpts{
				Name: spec.Name, Labels: spec.Labels, Type: hcloud.PlacementGroupTypeSpread})
			return res.PlacementGroup, []*hcloud.Action{res.Action}, err
		},
		labels: func(g *hcloud.PlacementGroup) map[string]string { return g.Labels },
	}
}

// PlacementGroup reads a group by id; false means that it does not exist.
func (d *Driver) PlacementGroup(ctx context.Context, id string) (PlacementGroup, bool, error) {
	op := "read placement group " + id
	n, err := parseID(op, id)
	if err != nil {
		return PlacementGroup{}, false, err
	}
	var g *hcloud.PlacementGroup
	err = d.call(ctx, op, func(ctx context.Context) (err error) {
		g, _, err = d.client.PlacementGroup.GetByID(ctx, n)
		return err
	})
	if err != nil || g == nil {
		return PlacementGroup{}, false, err
	}
	return placementGroupOf(g), true, nil
}

// UpdatePlacementGroup changes name and labels.
func (d *Driver) UpdatePlacementGroup(ctx context.Context, id, name string, labels map[string]string) error {
	op := "update placement group " + id
	n, err := parseID(op, id)
	if err != nil {
		return err
	}
	return d.call(ctx, op, func(ctx context.Context) error {
		_, _, err := d.client.PlacementGroup.Update(ctx, &hcloud.PlacementGroup{ID: n},
			hcloud.PlacementGroupUpdateOpts{Name: name, Labels: labels})
		return err
	})
}

// DeletePlacementGroup removes a group; one that is gone is no error.
func (d *Driver) DeletePlacementGroup(ctx context.Context, id string) error {
	op := "delete placement group " + id
	n, err := parseID(op, id)
	if err != nil {
		return err
	}
	return d.remove(ctx, op, func(ctx context.Context) error {
		_, err := d.client.PlacementGroup.Delete(ctx, &hcloud.PlacementGroup{ID: n})
		return err
	})
}

func placementGroupOf(g *hcloud.PlacementGroup) PlacementGroup {
	return PlacementGroup{ID: strconv.FormatInt(g.ID, 10), Name: g.Name, Labels: g.Labels}
}
