"""New objects with every field that Stripe's schemas ask for; what this server does not do stays null or empty."""
