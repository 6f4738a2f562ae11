package disk

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"popfleet/agents/disk/disktest"
)

func luks2(seq uint64) []byte {
	return disktest.LUKS2("2b3c33b7-3103-4e7c-957b-85c1c3f7dcf4", "fleet/fsn-1", seq)
}

func TestReadLUKS2(t *testing.T) {
	for name, c := range map[string]struct {
		spoil   func(dev []byte) []byte
		damaged string
		err     string
	}{
		"whole":             {func(d []byte) []byte { return d }, "", ""},
		"first spoilt":      {func(d []byte) []byte { d[5000] ^= 1; return d }, "first copy: its checksum", ""},
		"first gone":        {func(d []byte) []byte { clear(d[:4096]); return d }, "first copy: no LUKS2", ""},
		"second spoilt":     {func(d []byte) []byte { d[20000] ^= 1; return d }, "second copy: its checksum", ""},
		"second older":      {func(d []byte) []byte { copy(d[16<<10:], luks2(3)[16<<10:32<<10]); return d }, "the copies differ", ""},
		"both spoilt":       {func(d []byte) []byte { d[5000] ^= 1; d[20000] ^= 1; return d }, "", "checksum is wrong"},
		"nothing":           {func(d []byte) []byte { clear(d); return d }, "", "no LUKS2 header"},
		"cut":               {func(d []byte) []byte { return d[:5000] }, "", "EOF"},
		"a size of nothing": {func(d []byte) []byte { clear(d[8:16]); clear(d[16<<10:]); return d }, "", "impossible"},
	} {
		t.Run(name, func(t *testing.T) {
			h, err := ReadLUKS2(bytes.NewReader(c.spoil(luks2(4))))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("%v, want %q", err, c.err)
				}
				return
			}
			if err != nil || !strings.HasPrefix(h.Damaged, c.damaged) || (c.damaged == "") != (h.Damaged == "") || h.Subsystem != "fleet/fsn-1" || h.Seq != 4 {
				t.Errorf("%+v, %v; want damaged %q", h, err, c.damaged)
			}
		})
	}
}

// TestReadLUKS2OfCryptsetup reads what cryptsetup wrote into a file.
func TestReadLUKS2OfCryptsetup(t *testing.T) {
	tool, err := exec.LookPath("cryptsetup")
	if err != nil {
		t.Skip("no cryptsetup on this machine")
	}
	path := filepath.Join(t.TempDir(), "dev")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 32<<20); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tool, "luksFormat", "--batch-mode", "--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
		"--subsystem", "fleet/fsn-1", "--key-file", "-", path)
	cmd.Stdin = strings.NewReader("a key for a test")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("cryptsetup can't format a file here: %v: %s", err, out)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h, err := ReadLUKS2(f)
	if err != nil || h.Damaged != "" || h.Subsystem != "fleet/fsn-1" || len(h.UUID) != 36 {
		t.Errorf("%+v, %v", h, err)
	}
}

func FuzzReadLUKS2(f *testing.F) {
	f.Add(luks2(4)[:64<<10])
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = ReadLUKS2(bytes.NewReader(b)) })
}
