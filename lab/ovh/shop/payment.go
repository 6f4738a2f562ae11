package shop

import "popfleet/lab/ovh/api"

// cardID is the one payment method the account has.
const cardID = 7001

func (s *Shop) paymentMethods(*api.Request) (any, error) { return []int64{cardID}, nil }

func (s *Shop) paymentMethod(r *api.Request) (any, error) {
	if r.ID("paymentMethodId") != cardID {
		return nil, api.NoObject("paymentMethodId", r.Args["paymentMethodId"])
	}
	return map[string]any{
		"paymentMethodId": cardID, "paymentType": "CREDIT_CARD", "default": true, "status": "VALID", "description": nil, "label": "lab",
	}, nil
}

func (s *Shop) orderPaymentMethods(*api.Request, *order) (any, error) {
	return map[string]any{"available": []any{}, "paymentMethods": []any{}, "registered": []int64{cardID}}, nil
}

func (s *Shop) orderPaymentMeans(*api.Request, *order) (any, error) {
	return []any{map[string]any{"paymentMean": "CREDIT_CARD"}}, nil
}

func (s *Shop) payOrder(r *api.Request, ord *order) (any, error) {
	var in struct {
		Method *struct {
			ID int64 `json:"id"`
		} `json:"paymentMethod"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	if in.Method == nil || in.Method.ID != cardID {
		return nil, api.Bad("[body.paymentMethod] no such payment method")
	}
	return nil, s.pay(ord)
}

func (s *Shop) payWithMean(r *api.Request, ord *order) (any, error) {
	var in struct {
		Mean string `json:"paymentMean"`
		ID   *int64 `json:"paymentMeanId"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	if in.Mean != "CREDIT_CARD" && in.Mean != "creditCard" {
		return nil, api.Bad("[body.paymentMean] %q is not registered", in.Mean)
	}
	return nil, s.pay(ord)
}

func (s *Shop) pay(ord *order) error {
	if ord.Status != "notPaid" {
		return api.Conflict("Order %d is paid already", ord.ID)
	}
	s.paid(ord)
	return nil
}
