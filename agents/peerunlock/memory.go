package peerunlock

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/crypto/ssh"

	"popfleet/internal/strictjson"
)

// reload reads the wards when their file changed. One that can't be read leaves those that were read before.
func (w *Watcher) reload() {
	data, err := os.ReadFile(w.d.File)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.complain(err)
		return
	}
	sum := sha256.Sum256(data)
	w.mu.Lock()
	same := w.loaded == sum
	w.mu.Unlock()
	if same {
		return
	}
	c, err := Load(w.d.File)
	var login ssh.Signer
	if err == nil && c.Key != "" {
		login, err = ssh.ParsePrivateKey([]byte(c.Key))
	}
	if err != nil {
		w.complain(err)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wards, w.login, w.loaded, w.broken = c.Wards, login, sum, ""
	w.d.Log.Info("wards", "count", len(c.Wards))
}

// complain logs a problem once.
func (w *Watcher) complain(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken != err.Error() {
		w.broken = err.Error()
		w.d.Log.Error("wards can't be read", "error", err)
	}
}

const maxMemory = 1 << 20

// recall reads what an earlier run saw. What can't be read is not known: then nothing is handed over before the ward was
// seen alive again.
func (w *Watcher) recall() {
	if w.d.Memory == "" {
		return
	}
	info, err := os.Stat(w.d.Memory)
	if err != nil || info.Size() > maxMemory {
		return
	}
	var kept map[string]*memory
	if err := strictjson.File(w.d.Memory, &kept); err != nil {
		w.d.Log.Warn("what was seen of the wards is lost", "error", err)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for node, m := range kept {
		if m != nil && !m.Alive.After(now) {
			w.known[node] = m
		}
	}
}

// remember keeps what was seen, for the next run of this program.
func (w *Watcher) remember() {
	if w.d.Memory == "" {
		return
	}
	w.mu.Lock()
	kept := map[string]*memory{}
	for _, ward := range w.wards {
		if m := w.known[ward.Node]; m != nil {
			copied := *m
			kept[ward.Node] = &copied
		}
	}
	w.mu.Unlock()
	if len(kept) == 0 {
		return
	}
	data, err := json.Marshal(kept)
	if err != nil {
		return
	}
	// Not synced: after a power cut of this node it may be some seconds old, or gone, which holds a share back and does no
	// more.
	tmp := filepath.Join(filepath.Dir(w.d.Memory), "."+filepath.Base(w.d.Memory)+".new")
	err = os.WriteFile(tmp, data, 0o600)
	if err == nil {
		err = os.Rename(tmp, w.d.Memory)
	}
	if err != nil {
		w.complain(err)
	}
}
