package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// maxSkew is how far this machine's clock may be off: certificates are valid from the minute they are made, and the
// journal's times are evidence.
const maxSkew = 2 * time.Minute

// checkClock compares this machine's clock with the Date the provider's API answers with. Without an answer it says
// nothing: the first real call will.
func checkClock(ctx context.Context, endpoint string, from access) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return fmt.Errorf("the provider's endpoint %q is no address of an API; expected one like %s\n  hint: it comes from providers.….endpoint in fleet.yaml or from %s; without both it is the provider's own", endpoint, from.public, from.endpoint)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, endpoint, nil)
	if err != nil {
		return err
	}
	before := time.Now()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil
	}
	res.Body.Close()
	theirs, err := http.ParseTime(res.Header.Get("Date"))
	if err != nil {
		return nil
	}
	skew := before.Add(time.Since(before) / 2).Sub(theirs)
	if skew.Abs() <= maxSkew {
		return nil
	}
	return fmt.Errorf("this machine's clock is off by %s (here %s, at the provider %s)\n  hint: set the clock (timedatectl set-ntp true); certificates made now would not be valid on the nodes",
		skew.Round(time.Second), before.UTC().Format(time.RFC3339), theirs.UTC().Format(time.RFC3339))
}
