"""What we say to Stripe, and what our local server answers, held against Stripe's own published description."""
