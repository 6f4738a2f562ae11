package hcloud

import (
	"net/http"
	"slices"
	"time"
)

// group is a placement group; its members are the servers that name it.
type group struct {
	ID      int64             `json:"id"`
	Name    string            `json:"name"`
	Type    string            `json:"type"`
	Labels  map[string]string `json:"labels"`
	Created time.Time         `json:"created"`
}

type wireGroup struct {
	ID      int64             `json:"id"`
	Name    string            `json:"name"`
	Type    string            `json:"type"`
	Labels  map[string]string `json:"labels"`
	Created time.Time         `json:"created"`
	Servers []int64           `json:"servers"`
}

// maxGroupSize is the provider's: docs.hetzner.cloud, "Placement Groups", spread.
const maxGroupSize = 10

func (c *Cloud) wireGroup(g *group) wireGroup {
	return wireGroup{g.ID, g.Name, g.Type, g.Labels, g.Created, c.state.members(g.ID)}
}

func (st *state) members(group int64) []int64 {
	out := []int64{}
	for _, s := range st.servers() {
		if s.Group == group {
			out = append(out, s.ID)
		}
	}
	return out
}

func (st *state) roomInGroup(id int64) error {
	switch {
	case st.Groups[id] == nil:
		return invalid(field("placement_group", "placement group %d not found", id))
	case len(st.members(id)) >= maxGroupSize:
		return fail(http.StatusPreconditionFailed, "placement_error", "placement group is full (%d servers)", maxGroupSize)
	}
	return nil
}

func (c *Cloud) listGroups(r *request) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	labels := func(g *group) map[string]string { return g.Labels }
	return list(r, "placement_groups", byID(c.state.Groups), labels, func(g *group) string { return g.Name }, c.wireGroup)
}

func (c *Cloud) createGroup(r *request) (any, error) {
	var in struct {
		Name   string            `json:"name"`
		Type   string            `json:"type"`
		Labels map[string]string `json:"labels"`
	}
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	if in.Type != "spread" {
		return nil, invalid(field("type", "%q: expected spread", in.Type))
	}
	if in.Name == "" {
		return nil, invalid(field("name", "is missing"))
	}
	if err := checkLabels(in.Labels); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.groupNamed(in.Name) != nil {
		return nil, notUnique("placement group", in.Name)
	}
	g := &group{c.state.nextID(), in.Name, in.Type, orEmpty(in.Labels), time.Now().UTC()}
	c.state.Groups[g.ID] = g
	c.save()
	return created(map[string]any{"placement_group": c.wireGroup(g)})
}

func (st *state) groupNamed(name string) *group {
	for _, g := range st.Groups {
		if g.Name == name {
			return g
		}
	}
	return nil
}

func (c *Cloud) getGroup(r *request) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.state.Groups[r.id()]
	if g == nil {
		return nil, notFound("placement_group", r.id())
	}
	return map[string]any{"placement_group": c.wireGroup(g)}, nil
}

func (c *Cloud) updateGroup(r *request) (any, error) {
	var in update
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.state.Groups[r.id()]
	if g == nil {
		return nil, notFound("placement_group", r.id())
	}
	taken := func(n string) bool { o := c.state.groupNamed(n); return o != nil && o != g }
	if err := in.apply("placement group", &g.Name, &g.Labels, taken); err != nil {
		return nil, err
	}
	c.save()
	return map[string]any{"placement_group": c.wireGroup(g)}, nil
}

// deleteGroup lets its servers go, as the provider does.
func (c *Cloud) deleteGroup(r *request) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.state.Groups[r.id()]
	if g == nil {
		return nil, notFound("placement_group", r.id())
	}
	for _, s := range c.state.Servers {
		if s.Group == g.ID {
			s.Group = 0
		}
	}
	delete(c.state.Groups, g.ID)
	c.save()
	return nil, nil
}

func (c *Cloud) joinGroup(r *request) (any, error) {
	var in struct {
		Group int64 `json:"placement_group"`
	}
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	return c.groupAction(r, "add_to_placement_group", func(s *server) error {
		if s.Status != "off" {
			return fail(http.StatusUnprocessableEntity, "server_not_stopped", "server must be off")
		}
		if slices.Contains(c.state.members(in.Group), s.ID) {
			return nil
		}
		if err := c.state.roomInGroup(in.Group); err != nil {
			return err
		}
		s.Group = in.Group
		return nil
	})
}

func (c *Cloud) leaveGroup(r *request) (any, error) {
	return c.groupAction(r, "remove_from_placement_group", func(s *server) error { s.Group = 0; return nil })
}

func (c *Cloud) groupAction(r *request, command string, do func(*server) error) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.free(r.id())
	if err != nil {
		return nil, err
	}
	if err := do(s); err != nil {
		return nil, err
	}
	a := c.begin(command, "", nil, r.fault, serverRes(s.ID))
	c.save()
	return created(map[string]any{"action": c.wireAction(a)})
}
