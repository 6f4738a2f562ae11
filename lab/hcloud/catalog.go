package hcloud

import (
	"strconv"
	"time"
)

// epoch is when everything that was always there was made.
var epoch = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// ServerType is one line of the provider's catalogue.
type ServerType struct {
	ID       int64
	Name     string
	Text     string
	Cores    int
	MemoryGB int
	DiskGB   int
	CPU      string // shared | dedicated
	Disks    int    // the lab's own types may have two
	Firmware string
}

// Hardware is what the type promises.
func (t ServerType) Hardware() Hardware {
	return Hardware{CPUs: t.Cores, MemoryMB: t.MemoryGB * 1024, DiskGB: t.DiskGB, Disks: t.Disks, Firmware: t.Firmware}
}

// serverTypes are some of the provider's, and the lab's own: the provider has no cloud server with two disks or UEFI,
// bare metal has.
func serverTypes() []ServerType {
	return []ServerType{
		{114, "cx23", "CX23", 2, 4, 40, "shared", 1, "bios"},
		{115, "cx33", "CX33", 4, 8, 80, "shared", 1, "bios"},
		{116, "cx43", "CX43", 8, 16, 160, "shared", 1, "bios"},
		{108, "cpx22", "CPX22", 2, 4, 80, "shared", 1, "bios"},
		{96, "ccx13", "CCX13 Dedicated CPU", 2, 8, 80, "dedicated", 1, "bios"},
		{9001, "lab-uefi", "lab: UEFI firmware", 2, 4, 40, "shared", 1, "uefi"},
		{9002, "lab-raid", "lab: two disks", 2, 4, 40, "shared", 2, "bios"},
		{9003, "lab-raid-uefi", "lab: two disks, UEFI firmware", 2, 4, 40, "shared", 2, "uefi"},
		{9004, "lab-tiny", "lab: a disk too small to install on", 1, 1, 4, "shared", 1, "bios"},
	}
}

func serverType(idOrName string) (ServerType, bool) {
	for _, t := range serverTypes() {
		if t.Name == idOrName || strconv.FormatInt(t.ID, 10) == idOrName {
			return t, true
		}
	}
	return ServerType{}, false
}

type place struct {
	ID                        int64
	Name, City, Text, Country string
	Lat, Lon                  float64
	Zone                      string
}

func places() []place {
	return []place{
		{ID: 1, Name: "fsn1", City: "Falkenstein", Text: "Falkenstein DC Park 1", Country: "DE", Lat: 50.47612, Lon: 12.370071, Zone: "eu-central"},
		{ID: 2, Name: "nbg1", City: "Nuremberg", Text: "Nuremberg DC Park 1", Country: "DE", Lat: 49.452102, Lon: 11.076665, Zone: "eu-central"},
		{ID: 3, Name: "hel1", City: "Helsinki", Text: "Helsinki DC Park 1", Country: "FI", Lat: 60.169855, Lon: 24.938379, Zone: "eu-central"},
		{ID: 4, Name: "ash", City: "Ashburn, VA", Text: "Ashburn, VA", Country: "US", Lat: 39.045821, Lon: -77.487073, Zone: "us-east"},
		{ID: 5, Name: "hil", City: "Hillsboro, OR", Text: "Hillsboro, OR", Country: "US", Lat: 45.54222, Lon: -122.951924, Zone: "us-west"},
		{ID: 6, Name: "sin", City: "Singapore", Text: "Singapore", Country: "SG", Lat: 1.283333, Lon: 103.833333, Zone: "ap-southeast"},
	}
}

func placeOf(idOrName string) (place, bool) {
	for _, p := range places() {
		if p.Name == idOrName || strconv.FormatInt(p.ID, 10) == idOrName {
			return p, true
		}
	}
	return place{}, false
}

type image struct {
	ID                    int64
	Name, Text, OS, OSVer string
}

func images() []image {
	return []image{
		{114690387, "debian-12", "Debian 12", "debian", "12"},
		{310557660, "debian-13", "Debian 13", "debian", "13"},
		{161547269, "ubuntu-24.04", "Ubuntu 24.04", "ubuntu", "24.04"},
	}
}

func imageOf(idOrName string) (image, bool) {
	for _, i := range images() {
		if i.Name == idOrName || strconv.FormatInt(i.ID, 10) == idOrName {
			return i, true
		}
	}
	return image{}, false
}
