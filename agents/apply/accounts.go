package apply

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"popfleet/playbooks/spec"
)

const sysusersPath = "/etc/sysusers.d/fleet.conf"

// accountDB is /etc/passwd and /etc/group. Fleet accounts are local, so the files are the truth; nss modules are not asked.
type accountDB struct {
	users  map[string]account
	groups map[string]group
}

type account struct {
	uid, gid int
	home     string
}

type group struct {
	gid     int
	members []string
}

func (t *tree) accountDB() (accountDB, error) {
	db := accountDB{users: map[string]account{}, groups: map[string]group{}}
	err := t.colonFile("etc/passwd", 7, func(f []string) {
		uid, err1 := strconv.Atoi(f[2])
		gid, err2 := strconv.Atoi(f[3])
		if err1 == nil && err2 == nil {
			db.users[f[0]] = account{uid, gid, f[5]}
		}
	})
	if err != nil {
		return db, err
	}
	err = t.colonFile("etc/group", 4, func(f []string) {
		if gid, err := strconv.Atoi(f[2]); err == nil {
			db.groups[f[0]] = group{gid, strings.Split(f[3], ",")}
		}
	})
	return db, err
}

func (t *tree) colonFile(name string, fields int, got func([]string)) error {
	raw, err := t.ReadFile(name)
	if err != nil {
		return fmt.Errorf("read accounts: %w", err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(raw)); lines.Scan(); {
		if f := strings.Split(lines.Text(), ":"); len(f) == fields {
			got(f)
		}
	}
	return nil
}

// ids resolves owner and group; ok is false while one of them does not exist.
func (db accountDB) ids(owner, grp string) (uid, gid int, ok bool) {
	u, okUser := db.users[owner]
	g, okGroup := db.groups[grp]
	return u.uid, g.gid, okUser && okGroup
}

// accounts makes groups and users with systemd-sysusers: one process for all of them where useradd is one each (seconds
// apiece on an emulated machine), and its file tells an administrator whose accounts these are.
func (j *job) accounts(context.Context) (work, error) {
	db, err := j.tree.accountDB()
	if err != nil {
		return work{}, err
	}
	return work{changes: accountChanges(db, j.want), commit: j.sysusers}, nil
}

func accountChanges(db accountDB, n *spec.Node) []change {
	var out []change
	for _, g := range n.Groups {
		if _, ok := db.groups[g.Name]; !ok {
			out = append(out, change{name: "group " + g.Name, detail: "new system group"})
		}
	}
	for _, u := range n.Users {
		if d := userDiff(db, u); d != "" {
			out = append(out, change{name: "user " + u.Name, detail: d})
		}
	}
	return out
}

func userDiff(db accountDB, u spec.User) string {
	have, ok := db.users[u.Name]
	if !ok {
		return "new system user, groups " + strings.Join(append([]string{u.Group}, u.Groups...), ", ")
	}
	var diffs []string
	if g, ok := db.groups[u.Group]; !ok || g.gid != have.gid {
		diffs = append(diffs, "primary group is not "+u.Group)
	}
	for _, name := range u.Groups {
		if !slices.Contains(db.groups[name].members, u.Name) {
			diffs = append(diffs, "joins "+name)
		}
	}
	if u.Home != "" && u.Home != have.home {
		diffs = append(diffs, "home is "+have.home+", not "+u.Home)
	}
	return strings.Join(diffs, "; ")
}

func (j *job) sysusers(ctx context.Context) error {
	uid, gid, err := j.rootIDs()
	if err != nil {
		return err
	}
	if err := j.tree.replace(sysusersPath, sysusersFile(j.want), 0o644, uid, gid); err != nil {
		return err
	}
	if _, err := j.Runner.Run(ctx, Command{Args: []string{"systemd-sysusers", sysusersPath}}); err != nil {
		return err
	}
	db, err := j.tree.accountDB()
	if err != nil {
		return err
	}
	// sysusers adds, it never changes what exists: an account made by hand in another shape stays, and has to be said.
	if left := accountChanges(db, j.want); len(left) > 0 {
		return fmt.Errorf("%s: %s after systemd-sysusers; remove the account by hand and run again", left[0].name, left[0].detail)
	}
	return nil
}

// rootIDs are root's, from the machine's own files.
func (j *job) rootIDs() (uid, gid int, err error) {
	db, err := j.tree.accountDB()
	if err != nil {
		return 0, 0, err
	}
	uid, gid, ok := db.ids("root", "root")
	if !ok {
		return 0, 0, fmt.Errorf("this machine has no user root")
	}
	return uid, gid, nil
}

func sysusersFile(n *spec.Node) []byte {
	var b bytes.Buffer
	b.WriteString("# Written by fleet-agent apply.\n")
	for _, g := range n.Groups {
		fmt.Fprintf(&b, "g %s -\n", g.Name)
	}
	for _, u := range n.Users {
		id := "-"
		if u.Group != u.Name {
			id = "-:" + u.Group
		}
		home := u.Home
		if home == "" {
			home = "/nonexistent"
		}
		fmt.Fprintf(&b, "u %s %s \"popfleet\" %s /usr/sbin/nologin\n", u.Name, id, home)
		for _, g := range u.Groups {
			fmt.Fprintf(&b, "m %s %s\n", u.Name, g)
		}
	}
	return b.Bytes()
}
