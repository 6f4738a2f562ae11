package ovh

// Rights are the access rules that the consumer key needs, each a method and a path; those for ordering are apart, for a
// key that cannot order is the better one. A key with these rights can start any server of the account from a system of
// its holder's choice: it is worth the disks' keys, and OVH lets a rule name single servers in place of the star.
func Rights(ordering bool) []string {
	rules := []string{
		"GET /dedicated/server/*",
		"PUT /dedicated/server/*",
		"POST /dedicated/server/*/reboot",
		"GET /ip/*",
		"POST /ip/*/reverse",
		"DELETE /ip/*/reverse/*",
	}
	if !ordering {
		return rules
	}
	return append(rules,
		"GET /me",
		"GET /me/payment/method",
		"GET /me/order",
		"GET /me/order/*",
		"POST /me/order/*/pay",
		"POST /me/order/*/payWithRegisteredPaymentMean",
		"GET /order/cart/*",
		"POST /order/cart",
		"POST /order/cart/*",
		"DELETE /order/cart/*",
	)
}
