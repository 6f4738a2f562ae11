package hcloud

import (
	"net/http"
	"strconv"
	"time"
)

type wireLocation struct {
	ID          int64   `json:"id"`
	Name        string  `json:"name"`
	Description string  `json:"description"`
	Country     string  `json:"country"`
	City        string  `json:"city"`
	Latitude    float64 `json:"latitude"`
	Longitude   float64 `json:"longitude"`
	NetworkZone string  `json:"network_zone"`
}

func (p place) wire() wireLocation {
	return wireLocation{p.ID, p.Name, p.Text, p.Country, p.City, p.Lat, p.Lon, p.Zone}
}

type wireImage struct {
	ID           int64             `json:"id"`
	Type         string            `json:"type"`
	Status       string            `json:"status"`
	Name         *string           `json:"name"`
	Description  string            `json:"description"`
	ImageSize    *float64          `json:"image_size"`
	DiskSize     float64           `json:"disk_size"`
	Created      time.Time         `json:"created"`
	CreatedFrom  *struct{}         `json:"created_from"`
	BoundTo      *int64            `json:"bound_to"`
	OSFlavor     string            `json:"os_flavor"`
	OSVersion    *string           `json:"os_version"`
	RapidDeploy  bool              `json:"rapid_deploy"`
	Protection   wireProtection    `json:"protection"`
	Deprecated   *time.Time        `json:"deprecated"`
	Deleted      *time.Time        `json:"deleted"`
	Labels       map[string]string `json:"labels"`
	Architecture string            `json:"architecture"`
}

type wireProtection struct {
	Delete bool `json:"delete"`
}

func (i image) wire() wireImage {
	return wireImage{
		ID: i.ID, Type: "system", Status: "available", Name: &i.Name, Description: i.Text, DiskSize: 5, Created: epoch,
		OSFlavor: i.OS, OSVersion: &i.OSVer, RapidDeploy: true, Labels: map[string]string{}, Architecture: "x86",
	}
}

type wireServerType struct {
	ID           int64              `json:"id"`
	Name         string             `json:"name"`
	Description  string             `json:"description"`
	Category     string             `json:"category"`
	Cores        int                `json:"cores"`
	Memory       float64            `json:"memory"`
	Disk         float64            `json:"disk"`
	Deprecated   bool               `json:"deprecated"`
	Prices       []wirePrice        `json:"prices"`
	StorageType  string             `json:"storage_type"`
	CPUType      string             `json:"cpu_type"`
	Architecture string             `json:"architecture"`
	Deprecation  *struct{}          `json:"deprecation"`
	Locations    []wireTypeLocation `json:"locations"`
}

type wirePrice struct {
	Location        string     `json:"location"`
	PriceHourly     wireAmount `json:"price_hourly"`
	PriceMonthly    wireAmount `json:"price_monthly"`
	PricePerTB      wireAmount `json:"price_per_tb_traffic"`
	IncludedTraffic int64      `json:"included_traffic"`
}

type wireAmount struct {
	Net   string `json:"net"`
	Gross string `json:"gross"`
}

type wireTypeLocation struct {
	ID          int64     `json:"id"`
	Name        string    `json:"name"`
	Deprecation *struct{} `json:"deprecation"`
}

func (t ServerType) wire() wireServerType {
	w := wireServerType{
		ID: t.ID, Name: t.Name, Description: t.Text, Category: "Shared vCPU", Cores: t.Cores,
		Memory: float64(t.MemoryGB), Disk: float64(t.DiskGB), StorageType: "local", CPUType: t.CPU, Architecture: "x86",
		Prices: []wirePrice{}, Locations: []wireTypeLocation{},
	}
	if t.CPU == "dedicated" {
		w.Category = "Dedicated vCPU"
	}
	free := wireAmount{"0.0000000000", "0.0000000000000000"} // the lab costs nothing
	for _, p := range places() {
		w.Prices = append(w.Prices, wirePrice{p.Name, free, free, free, 21990232555520})
		w.Locations = append(w.Locations, wireTypeLocation{ID: p.ID, Name: p.Name})
	}
	return w
}

func (c *Cloud) listLocations(r *request) (any, error) {
	return list(r, "locations", places(), nil, func(p place) string { return p.Name }, place.wire)
}

func (c *Cloud) getLocation(r *request) (any, error) {
	p, ok := placeOf(strconv.FormatInt(r.id(), 10))
	if !ok {
		return nil, notFound("location", r.id())
	}
	return map[string]any{"location": p.wire()}, nil
}

func (c *Cloud) listImages(r *request) (any, error) {
	all := images()
	if a := r.query.Get("architecture"); a != "" && a != "x86" {
		all = nil
	}
	if t := r.query.Get("type"); t != "" && t != "system" {
		all = nil
	}
	return list(r, "images", all, nil, func(i image) string { return i.Name }, image.wire)
}

func (c *Cloud) getImage(r *request) (any, error) {
	i, ok := imageOf(strconv.FormatInt(r.id(), 10))
	if !ok {
		return nil, notFound("image", r.id())
	}
	return map[string]any{"image": i.wire()}, nil
}

func (c *Cloud) listServerTypes(r *request) (any, error) {
	return list(r, "server_types", serverTypes(), nil, func(t ServerType) string { return t.Name }, ServerType.wire)
}

func (c *Cloud) getServerType(r *request) (any, error) {
	t, ok := serverType(strconv.FormatInt(r.id(), 10))
	if !ok {
		return nil, notFound("server_type", r.id())
	}
	return map[string]any{"server_type": t.wire()}, nil
}

// created answers 201.
func created(v any) (any, error) { return reply{http.StatusCreated, v}, nil }
