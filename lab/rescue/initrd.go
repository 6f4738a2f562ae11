package rescue

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// initramfs writes a small uncompressed initrd: a static busybox, a handful of modules, one script. Debian's own takes
// several times as long to unpack and run, and nothing in it is needed here.
func (b *builder) initramfs(context.Context) error {
	moddir := filepath.Join(b.root, "lib/modules", b.kver)
	dep, err := os.ReadFile(filepath.Join(moddir, "modules.dep"))
	if err != nil {
		return err
	}
	order, err := loadOrder(string(dep), b.o.kernel().modules)
	if err != nil {
		return err
	}
	var a archive
	for _, d := range []string{"bin", "dev", "modules"} {
		a.dir(d)
	}
	a.char("dev/console", 5, 1) // the kernel opens it before /dev is mounted
	if err := b.add(&a, "bin/busybox", 0o755, filepath.Join(b.root, "bin/busybox")); err != nil {
		return err
	}
	var list strings.Builder
	for _, m := range order {
		name := filepath.Base(m)
		fmt.Fprintln(&list, name)
		if err := b.add(&a, "modules/"+name, 0o644, filepath.Join(moddir, m)); err != nil {
			return err
		}
	}
	a.file("modules.list", 0o644, []byte(list.String()))
	script, err := files.ReadFile("files/init")
	if err != nil {
		return err
	}
	a.file("init", 0o755, script)
	return os.WriteFile(filepath.Join(b.out, "initrd"), a.bytes(), 0o644)
}

func (b *builder) add(a *archive, name string, perm uint32, path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	a.file(name, perm, data)
	return nil
}

// loadOrder reads modules.dep and lists the wanted modules after what they depend on. A module that is not there is
// built into the kernel.
func loadOrder(dep string, want []string) ([]string, error) {
	needs := map[string][]string{}
	byName := map[string]string{}
	for line := range strings.Lines(dep) {
		path, deps, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			return nil, fmt.Errorf("modules.dep: %q is no dependency", line)
		}
		needs[path] = strings.Fields(deps)
		byName[strings.TrimSuffix(filepath.Base(path), ".ko")] = path
	}
	var order []string
	for _, name := range want {
		path, ok := byName[name]
		if !ok {
			continue
		}
		deps := slices.Clone(needs[path]) // the deepest comes last
		slices.Reverse(deps)
		for _, m := range append(deps, path) {
			if !slices.Contains(order, m) {
				order = append(order, m)
			}
		}
	}
	return order, nil
}
