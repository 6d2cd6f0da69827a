"""What a change of plan would cost, were it made now: Stripe's word, and nothing is changed by asking."""
