package hetznerrobot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Euro is an amount in ten-thousandths of a euro: Robot names hourly prices to four places.
type Euro int64

func (e Euro) String() string {
	text := fmt.Sprintf("%d.%04d", e/1e4, e%1e4)
	return strings.TrimSuffix(strings.TrimSuffix(text, "0"), "0") + " €"
}

// MarshalJSON writes the amount as decimal text.
func (e Euro) MarshalJSON() ([]byte, error) {
	return json.Marshal(strings.TrimSuffix(e.String(), " €"))
}

// UnmarshalJSON reads "49.58", 49.58, or null for none.
func (e *Euro) UnmarshalJSON(raw []byte) error {
	*e = 0
	text := string(bytes.Trim(raw, `"`))
	if text == "null" || text == "" {
		return nil
	}
	v, err := parseEuro(text)
	*e = v
	return err
}

func parseEuro(text string) (Euro, error) {
	whole, part, _ := strings.Cut(text, ".")
	bad := fmt.Errorf("price %.20q: expected euros, as 49.58", text)
	if len(whole) == 0 || len(whole) > 9 || len(part) > 8 {
		return 0, bad
	}
	for len(part) < 4 {
		part += "0"
	}
	rest := strings.Trim(part[4:], "0") // a price is never rounded down
	v, err := strconv.ParseUint(whole+part[:4], 10, 63)
	if err != nil || rest != "" {
		return 0, bad
	}
	return Euro(v), nil
}

// wireProduct is a product of either kind: the market writes prices at the top, for the one place where the machine is.
type wireProduct struct {
	Product struct {
		ID          json.RawMessage `json:"id"` // a word, or the market's number
		Name        string          `json:"name"`
		Description []string        `json:"description"`
		Dist        []string        `json:"dist"`
		Location    oneOrMany       `json:"location"`
		Prices      []wirePrice     `json:"prices"`
		Addons      []struct {
			ID     string      `json:"id"`
			Prices []wirePrice `json:"prices"`
		} `json:"orderable_addons"`

		Datacenter  nullString `json:"datacenter"`
		Price       Euro       `json:"price"`
		PriceHourly Euro       `json:"price_hourly"`
		PriceSetup  Euro       `json:"price_setup"`
		GrossPrice  Euro       `json:"price_vat"`
		GrossHourly Euro       `json:"price_hourly_vat"`
		GrossSetup  Euro       `json:"price_setup_vat"`
	} `json:"product"`
}

type wirePrice struct {
	Location string `json:"location"`
	Price    struct {
		Net         Euro `json:"net"`
		Gross       Euro `json:"gross"`
		HourlyNet   Euro `json:"hourly_net"`
		HourlyGross Euro `json:"hourly_gross"`
	} `json:"price"`
	Setup struct {
		Net   Euro `json:"net"`
		Gross Euro `json:"gross"`
	} `json:"price_setup"`
}

func (w wireProduct) product(market bool) (Product, error) {
	in := w.Product
	id, err := productID(in.ID)
	if err != nil {
		return Product{}, err
	}
	p := Product{Market: market, ID: id, Name: printable(in.Name, 100), dists: in.Dist, Locations: in.Location.list,
		Prices: prices(in.Prices)}
	for _, line := range in.Description {
		p.Description = append(p.Description, printable(line, 200))
	}
	for _, a := range in.Addons {
		if a.ID == addonIPv4 {
			p.ipv4 = prices(a.Prices)
		}
	}
	if market {
		place := printable(string(in.Datacenter), 40)
		p.Locations = []string{place}
		p.Prices = []Price{{Location: place,
			Net:   Amounts{Monthly: in.Price, Setup: in.PriceSetup, Hourly: in.PriceHourly},
			Gross: Amounts{Monthly: in.GrossPrice, Setup: in.GrossSetup, Hourly: in.GrossHourly}}}
	}
	return p, nil
}

func prices(all []wirePrice) []Price {
	out := make([]Price, 0, len(all))
	for _, w := range all {
		out = append(out, Price{Location: printable(w.Location, 40),
			Net:   Amounts{Monthly: w.Price.Net, Setup: w.Setup.Net, Hourly: w.Price.HourlyNet},
			Gross: Amounts{Monthly: w.Price.Gross, Setup: w.Setup.Gross, Hourly: w.Price.HourlyGross}})
	}
	return out
}

func productID(raw json.RawMessage) (string, error) {
	var word string
	if json.Unmarshal(raw, &word) == nil && word != "" {
		return printable(word, 100), nil
	}
	var number int64
	if json.Unmarshal(raw, &number) == nil && number > 0 {
		return strconv.FormatInt(number, 10), nil
	}
	return "", errors.New("a product without id")
}

// wireTransaction is an order as Robot lists it.
type wireTransaction struct {
	Transaction struct {
		ID         string    `json:"id"`
		Date       string    `json:"date"`
		Status     string    `json:"status"` // in process, ready, cancelled
		Server     *int      `json:"server_number"`
		Authorized []bootKey `json:"authorized_key"`
		Product    struct {
			ID       json.RawMessage `json:"id"`
			Location nullString      `json:"location"`
		} `json:"product"`
	} `json:"transaction"`
}

func (w wireTransaction) transaction(market bool) (Transaction, error) {
	in := w.Transaction
	if in.ID == "" || len(in.ID) > 100 || printable(in.ID, 100) != in.ID {
		return Transaction{}, fmt.Errorf("%w: a transaction without id", errMalformed)
	}
	id, err := productID(in.Product.ID)
	if err != nil {
		return Transaction{}, fmt.Errorf("%w: transaction %s: %w", errMalformed, in.ID, err)
	}
	t := Transaction{Market: market, ID: in.ID, Status: printable(in.Status, 40), Product: id,
		Location: printable(string(in.Product.Location), 40)}
	if in.Server != nil && *in.Server > 0 {
		t.Server = strconv.Itoa(*in.Server)
	}
	t.At, _ = time.Parse(time.RFC3339, in.Date) // for people only
	return t, nil
}
