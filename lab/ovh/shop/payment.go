package ovh

// cardID is the one payment method the account has.
const cardID = 7001

func (o *OVH) paymentMethods(*request) (any, error) { return []int64{cardID}, nil }

func (o *OVH) paymentMethod(r *request) (any, error) {
	if r.id("paymentMethodId") != cardID {
		return nil, noObject("paymentMethodId", r.args["paymentMethodId"])
	}
	return map[string]any{
		"paymentMethodId": cardID, "paymentType": "CREDIT_CARD", "default": true, "status": "VALID", "description": nil, "label": "lab",
	}, nil
}

func (o *OVH) orderPaymentMethods(*request, *order) (any, error) {
	return map[string]any{"available": []any{}, "paymentMethods": []any{}, "registered": []int64{cardID}}, nil
}

func (o *OVH) orderPaymentMeans(*request, *order) (any, error) {
	return []any{map[string]any{"paymentMean": "CREDIT_CARD"}}, nil
}

func (o *OVH) payOrder(r *request, ord *order) (any, error) {
	var in struct {
		Method *struct {
			ID int64 `json:"id"`
		} `json:"paymentMethod"`
	}
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	if in.Method == nil || in.Method.ID != cardID {
		return nil, bad("[body.paymentMethod] no such payment method")
	}
	return nil, o.pay(ord)
}

func (o *OVH) payWithMean(r *request, ord *order) (any, error) {
	var in struct {
		Mean string `json:"paymentMean"`
		ID   *int64 `json:"paymentMeanId"`
	}
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	if in.Mean != "CREDIT_CARD" && in.Mean != "creditCard" {
		return nil, bad("[body.paymentMean] %q is not registered", in.Mean)
	}
	return nil, o.pay(ord)
}

func (o *OVH) pay(ord *order) error {
	if ord.Status != "notPaid" {
		return conflict("Order %d is paid already", ord.ID)
	}
	o.paid(ord)
	return nil
}
