package controller

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"popfleet/fleet/controller/intake"
	"popfleet/internal/mtls"
)

// maxBodyBytes bounds POST /v1/reports as it is sent.
const maxBodyBytes = 4 << 20

// Services whose certificates may call.
const (
	agentService    = "agent"
	operatorService = "operator"
)

// stopTimeout is how long running requests may take when the controller ends.
const stopTimeout = 5 * time.Second

// serve answers on l until ctx ends.
func serve(ctx context.Context, l net.Listener, b *board, id *rotating) error {
	srv := &http.Server{
		Handler: handler(b), TLSConfig: id.config(b.deps.Lifecycle.Fleet, b.deps.Log),
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(b.deps.Log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- srv.ServeTLS(l, "", "") }()
	select {
	case err := <-served:
		return fmt.Errorf("controller: %w", err)
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if srv.Shutdown(stopping) != nil {
		srv.Close()
	}
	<-served
	return nil
}

func handler(b *board) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/reports", only(agentService, b.postReports))
	mux.HandleFunc("GET /v1/status", only(operatorService, func(w http.ResponseWriter, _ *http.Request, _ mtls.Name) error {
		return answer(w, b.status())
	}))
	mux.HandleFunc("POST /v1/nodes/{node}/expect", only(operatorService, b.postExpect))
	mux.HandleFunc("POST /v1/nodes/{node}/said", only(operatorService, b.postSaid))
	return mux
}

// refusal is an error that the caller is told, with its HTTP status.
type refusal struct {
	code int
	text string
}

func (r *refusal) Error() string { return r.text }

// only lets one service's certificates in, and tells errors as {"error":…}.
func only(service string, do func(http.ResponseWriter, *http.Request, mtls.Name) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		who, err := mtls.Peer(*r.TLS)
		if err == nil && who.Service != service {
			err = &refusal{http.StatusForbidden, fmt.Sprintf("%s may not %s %s", who, r.Method, r.URL.Path)}
		}
		if err == nil {
			err = do(w, r, who)
		}
		if err == nil {
			return
		}
		code := http.StatusInternalServerError
		var told *refusal
		if errors.As(err, &told) {
			code = told.code
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()}) // the caller went away: nobody is left to tell
	}
}

func answer(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // likewise
	return nil
}

func (b *board) postReports(w http.ResponseWriter, r *http.Request, who mtls.Name) error {
	if _, known := b.inventory().Node(who.Node); !known {
		return &refusal{http.StatusForbidden, fmt.Sprintf("no node %q in the controller's fleet file", who.Node)}
	}
	body := http.MaxBytesReader(w, r.Body, maxBodyBytes)
	reports, err := intake.Read(body, r.Header.Get("Content-Encoding"), who.Node)
	if err != nil {
		return &refusal{http.StatusBadRequest, err.Error()}
	}
	seq := b.accept(who.Node, reports)
	return answer(w, Accepted{AckedSeq: seq, Time: b.now().UTC(), Interval: b.cfg.Interval.String()})
}

// maxExpect bounds a mark: it is for one reboot, not a way around the policy.
const maxExpect = 6 * time.Hour

func (b *board) postExpect(w http.ResponseWriter, r *http.Request, who mtls.Name) error {
	node := r.PathValue("node")
	if _, known := b.inventory().Node(node); !known {
		return &refusal{http.StatusNotFound, fmt.Sprintf("no node %q in the controller's fleet file", node)}
	}
	var e Expect
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4096))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		return &refusal{http.StatusBadRequest, "expect: " + err.Error()}
	}
	if e.ForSec <= 0 || e.ForSec > maxExpect.Seconds() {
		return &refusal{http.StatusBadRequest, fmt.Sprintf("expect: for_sec %g; expected more than 0 and at most %g", e.ForSec, maxExpect.Seconds())}
	}
	if err := b.expect(r.Context(), node, time.Duration(e.ForSec*float64(time.Second)), who); err != nil {
		return err
	}
	return answer(w, b.status())
}

// rotating is the server's identity, asked for again so that a renewed certificate is served without a restart.
type rotating struct {
	ask func() (*mtls.Identity, error)

	mu      sync.Mutex
	current *mtls.Identity
	serving *tls.Config
	asked   time.Time
}

const identityEvery = time.Hour

func newRotating(ask func() (*mtls.Identity, error)) (*rotating, error) {
	id, err := ask()
	if err != nil {
		return nil, fmt.Errorf("controller: certificate: %w", err)
	}
	return &rotating{ask: ask, current: id, asked: time.Now()}, nil
}

func (r *rotating) config(fleet string, log *slog.Logger) *tls.Config {
	allow := func(n mtls.Name) error {
		if n.Fleet != fleet || n.Service != agentService && n.Service != operatorService {
			return &mtls.PeerError{Want: "an agent or an operator of fleet " + fleet, Got: n.String()}
		}
		return nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if time.Since(r.asked) >= identityEvery {
			r.asked = time.Now()
			if id, err := r.ask(); err != nil {
				log.Error("certificate not renewed", "error", err)
			} else {
				r.current, r.serving = id, nil
			}
		}
		if r.serving == nil {
			r.serving = r.current.Server(allow)
		}
		return r.serving, nil
	}}
}
