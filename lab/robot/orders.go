package robot

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"popfleet/lab/faults"
)

// channel is where a server is ordered.
type channel string

const (
	standard channel = "server"
	market   channel = "server_market"
)

// transaction is one order.
type transaction struct {
	ID       string      `json:"id"`
	Channel  channel     `json:"channel"`
	Date     time.Time   `json:"date"`
	Due      time.Time   `json:"due"` // power-on of the server
	Status   string      `json:"status"`
	ItemID   string      `json:"item_id"` // of the product
	Item     object      `json:"item"`    // the product as it was ordered
	Location string      `json:"location,omitempty"`
	Keys     []sshKey    `json:"keys"`
	Password string      `json:"password,omitempty"`
	Comment  string      `json:"comment,omitempty"`
	Addons   []string    `json:"addons"`
	Server   int         `json:"server,omitempty"` // taken from the stock
	HostKeys []publicKey `json:"host_keys,omitempty"`
	NoIPv4   bool        `json:"no_ipv4,omitempty"`
	Stuck    bool        `json:"stuck,omitempty"`  // a fault: it stays in process
	Doomed   bool        `json:"doomed,omitempty"` // a fault: it will be cancelled
}

// wish is what an order asks for.
type wish struct {
	id, location, password, comment string
	keys                            []sshKey
	addons                          []string
	test                            bool
}

// readWish checks what both channels have in common; r.mu is held.
func (r *Robot) readWish(q *request) (wish, []string) {
	w := wish{id: q.form.Get("product_id"), location: q.form.Get("location"), password: q.form.Get("password"),
		comment: q.form.Get("comment"), addons: q.form["addon"]}
	var wrong []string
	for name, only := range map[string]string{"dist": rescueDist, "arch": "64", "lang": "en"} {
		if v := q.form.Get(name); v != "" && v != only {
			wrong = append(wrong, name)
		}
	}
	keys, e := r.pick(q.form["authorized_key"])
	if w.keys = keys; e != nil || len(keys) > 0 && w.password != "" {
		wrong = append(wrong, "authorized_key") // either keys or a password, says the documentation
	}
	if slices.ContainsFunc(w.addons, func(a string) bool { return a != "primary_ipv4" }) || len(w.addons) > 1 {
		wrong = append(wrong, "addon")
	}
	switch q.form.Get("test") {
	case "true":
		w.test = true
	case "", "false":
	default:
		wrong = append(wrong, "test")
	}
	slices.Sort(wrong)
	return w, wrong
}

// order books a server. A test order comes back cancelled and is kept nowhere.
func order(c channel) func(*Robot, *request) (any, error) {
	return func(r *Robot, q *request) (any, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		w, wrong := r.readWish(q)
		t := r.book(c, w)
		if !r.choose(t, &w) {
			wrong = append(wrong, "product_id")
		} else if c == standard && w.location == "" {
			wrong = append(wrong, "location")
		}
		if wrong != nil {
			return nil, invalid(wrong...)
		}
		if w.test {
			t.Status, t.Server = cancelled, 0
			return reply{http.StatusCreated, r.wireTransaction(t)}, nil
		}
		t.Stuck, t.Doomed = q.struck(faults.TaskStuck), q.struck(faults.TaskError)
		t.NoIPv4 = len(w.addons) == 0 || q.struck(faults.NoIPv4)
		r.state.Transactions = append(r.state.Transactions, t)
		r.save()
		r.spawn(func() { r.deliver(t) })
		return reply{http.StatusCreated, r.wireTransaction(t)}, nil
	}
}

// book writes a transaction that is not in the books yet; r.mu is held.
func (r *Robot) book(c channel, w wish) *transaction {
	now, n := time.Now().UTC(), len(r.state.Transactions)
	wait := r.delay(standardTime)
	switch {
	case w.comment != "": // "if a comment is supplied, the order will be processed manually"
		wait = r.delay(manualTime)
	case c == market:
		wait = r.delay(marketTime)
	}
	return &transaction{
		ID: fmt.Sprintf("B%s-%06d-%06d", now.In(r.berlin).Format("20060102"), 344957+n, 251478+n), Channel: c, Date: now, Due: now.Add(wait),
		Status: inProcess, ItemID: w.id, Keys: w.keys, Password: w.password, Comment: w.comment, Addons: append([]string{}, w.addons...),
	}
}

// choose finds the product. A wrong location is emptied; one from the market is sold with the order. r.mu is held.
func (r *Robot) choose(t *transaction, w *wish) bool {
	if t.Channel == market {
		m, ok := r.findOffer(w.id)
		if !ok {
			return false
		}
		t.Server, t.Location = m.Number, m.location()
		t.Item = m.offered()
		t.Item["dist"], t.Item["arch"], t.Item["lang"] = rescueDist, "64", "en"
		return true
	}
	p, ok := findProduct(w.id)
	if !ok {
		return false
	}
	if w.location == "" {
		w.location = p.locations[0]
	} else if !slices.Contains(p.locations, w.location) {
		w.location = ""
	}
	t.Location, t.Item = w.location, p.ordered(*w)
	return true
}

func (r *Robot) wireTransaction(t *transaction) object {
	o := object{
		"id": t.ID, "date": t.Date.In(r.berlin).Format(time.RFC3339), "status": t.Status, "server_number": nil, "server_ip": nil,
		"authorized_key": references(t.Keys), "host_key": wireHostKeys(t.HostKeys), "comment": nil, "product": t.Item, "addons": t.Addons,
	}
	if t.Comment != "" {
		o["comment"] = t.Comment
	}
	if s := r.state.Servers[t.Server]; s != nil && t.Status == ready {
		o["server_number"], o["server_ip"] = s.Number, s.ip()
	}
	return object{"transaction": o}
}

// month is how far back the list of orders goes; a single one is found for longer.
const month = 30 * 24 * time.Hour

func transactions(c channel) func(*Robot, *request) (any, error) {
	return func(r *Robot, _ *request) (any, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		var out []object
		for _, t := range r.state.Transactions {
			if t.Channel == c && time.Since(t.Date) < month {
				out = append(out, r.wireTransaction(t))
			}
		}
		if out == nil {
			return nil, notFound("NOT_FOUND", "No transactions found")
		}
		return out, nil
	}
}

func oneTransaction(c channel) func(*Robot, *request) (any, error) {
	return func(r *Robot, q *request) (any, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, t := range r.state.Transactions {
			if t.Channel == c && t.ID == q.PathValue("id") {
				return r.wireTransaction(t), nil
			}
		}
		return nil, notFound("NOT_FOUND", "Transaction not found")
	}
}

// resumeOrders goes on with what a former lab process had not delivered.
func (r *Robot) resumeOrders() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.state.Transactions {
		if t.Status == inProcess {
			r.spawn(func() { r.deliver(t) })
		}
	}
}

// deliver brings a server from the stock when its time has come. With nothing in stock the order stays in process.
func (r *Robot) deliver(t *transaction) {
	if !pause(r.life, time.Until(t.Due)) {
		return // the lab goes down; the next one goes on with it
	}
	m, ok := r.take(t)
	if !ok {
		return
	}
	if err := r.rent(r.life, m); err != nil && r.life.Err() == nil {
		r.opt.Log.Error("deliver server", "transaction", t.ID, "server", m.Number, "error", err)
	}
}

// take picks the machine and writes the server into the books, to be handed over in the rescue system.
func (r *Robot) take(t *transaction) (Machine, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.save()
	if t.Doomed {
		t.Status = cancelled
	}
	if t.Doomed || t.Stuck || t.Status != inProcess {
		return Machine{}, false
	}
	for _, m := range r.opt.Stock {
		if m = complete(m); !r.serves(m, t) {
			continue
		}
		m.Off = false
		t.Server = m.Number
		r.state.Servers[m.Number] = &server{
			Number: m.Number, Status: inProcess, Rented: time.Now().UTC(), NoIPv4: t.NoIPv4, hw: m, wake: make(chan struct{}),
			Delivery: &delivery{Transaction: t.ID, Keys: t.Keys, Password: t.Password},
		}
		return m, true
	}
	r.opt.Log.Warn("nothing in stock", "transaction", t.ID, "product", t.ItemID, "location", t.Location)
	return Machine{}, false
}

// serves says whether a machine is what an order is about; r.mu is held.
func (r *Robot) serves(m Machine, t *transaction) bool {
	if t.Channel == market {
		return strconv.Itoa(m.Offer) == t.ItemID && r.state.Servers[m.Number] == nil
	}
	return m.Offer == 0 && m.Product == t.ItemID && m.location() == t.Location && !r.sold(m)
}

// delivered hands a server over: its rescue system is up, and the order tells its host keys. /boot knows nothing of that
// rescue system. r.mu is held.
func (r *Robot) delivered(s *server, d *delivery, told []publicKey) {
	for _, t := range r.state.Transactions {
		if t.ID == d.Transaction {
			t.Status, t.HostKeys = ready, told
		}
	}
	s.Status, s.Delivery = ready, nil
	r.save()
}
