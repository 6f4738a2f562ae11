package ovh

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"popfleet/lab/machine"
	"popfleet/lab/ovh/api"
)

// reinstallable is a machine that its provider can put a new system on. The lab's own kinds are not: their first system
// is the fleet's. For such a machine the task ends in ovhError and says so.
type reinstallable interface {
	Reinstall(ctx context.Context, template, sshKey string) error
}

// templates are what a server can be reinstalled with.
func templates() []string {
	return []string{"alma9_64", "byoi_64", "byolinux_64", "debian12_64", "debian13_64", "ubuntu2404-server_64"}
}

// installSteps are the steps a running install shows, a few of the provider's two dozen.
func installSteps() []string {
	return []string{"Checking BIOS version", "Preparing disks for new Partitioning", "Applying Partitioning", "Downloading OS image", "Deploying OS", "Rebooting on the new OS"}
}

// reinstallOrder is a dedicated.server.Reinstall.
type reinstallOrder struct {
	OperatingSystem string `json:"operatingSystem"`
	Customizations  *struct {
		UserData      string            `json:"configDriveUserData"`
		EFIPath       string            `json:"efiBootloaderPath"`
		Hostname      string            `json:"hostname"`
		HTTPHeaders   map[string]string `json:"httpHeaders"`
		CheckSum      string            `json:"imageCheckSum"`
		CheckSumType  string            `json:"imageCheckSumType"`
		ImageType     string            `json:"imageType"`
		ImageURL      string            `json:"imageURL"`
		Language      string            `json:"language"`
		PostScript    string            `json:"postInstallationScript"`
		PostExtension string            `json:"postInstallationScriptExtension"`
		SSHKey        string            `json:"sshKey"`
	} `json:"customizations"`
	Properties map[string]json.RawMessage `json:"properties"`
	Storage    []struct {
		DiskGroupID  int64           `json:"diskGroupId"`
		HardwareRaid json.RawMessage `json:"hardwareRaid"`
		Partitioning *struct {
			Disks      int               `json:"disks"`
			SchemeName string            `json:"schemeName"`
			Layout     []json.RawMessage `json:"layout"`
		} `json:"partitioning"`
	} `json:"storage"`
}

func (o *OVH) reinstall(r *request, s *server) (any, error) {
	var in reinstallOrder
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	if !slices.Contains(templates(), in.OperatingSystem) {
		return nil, api.Bad("[body.operatingSystem] %q is not compatible with this server", in.OperatingSystem)
	}
	if o.running(s, Reinstall) != nil {
		return nil, api.Conflict("A reinstallation is already running on this server")
	}
	key := ""
	if in.Customizations != nil {
		key = in.Customizations.SSHKey
	}
	if key != "" && publicKey(key) != nil {
		return nil, api.Bad("[body.customizations.sshKey] invalid SSH public key")
	}
	t := o.begin(s, Reinstall, "Start dedicated server installation", r.fault)
	t.Template, t.SSHKey = in.OperatingSystem, key
	w := t.wire()
	return map[string]any{
		"taskId": w.TaskID, "function": w.Function, "status": w.Status, "comment": t.Comment, "startDate": w.StartDate, "doneDate": w.DoneDate,
	}, nil
}

func (o *OVH) reinstalled(ctx context.Context, m machine.Machine, t *task) error {
	r, ok := m.(reinstallable)
	if !ok {
		return errors.New("the lab's machines can't be reinstalled by their provider")
	}
	return r.Reinstall(ctx, t.Template, t.SSHKey)
}

// settle writes a finished reinstall into the books; o.mu is held. The server starts from its disk again.
func (o *OVH) settle(s *server, t *task) {
	if t.Effect {
		s.OS = t.Template
		s.BootID = ptr(o.kernelID(kernelDisk))
	}
}

func (o *OVH) installStatus(_ *request, s *server) (any, error) {
	t := o.running(s, Reinstall)
	if t == nil {
		return nil, api.NotFound("Server is not being installed or reinstalled at the moment")
	}
	elapsed := o.clock().Sub(t.Start)
	steps := installSteps()
	at := -1
	if whole := o.opt.Delay(Reinstall); t.Status == "doing" && whole > 0 {
		at = min(len(steps)-1, int(o.clock().Sub(t.Last)*time.Duration(len(steps))/whole))
	}
	progress := []map[string]any{}
	for i, step := range steps {
		status := "todo"
		switch {
		case i < at:
			status = "done"
		case i == at:
			status = "doing"
		}
		progress = append(progress, map[string]any{"comment": step, "status": status, "error": ""})
	}
	return map[string]any{"elapsedTime": int(elapsed.Seconds()), "progress": progress}, nil
}

func (o *OVH) compatibleTemplates(*request, *server) (any, error) {
	return map[string]any{"ovh": templates(), "personal": []string{}}, nil
}
