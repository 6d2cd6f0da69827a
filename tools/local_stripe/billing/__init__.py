"""What Stripe does by itself: periods, payments, invoices, and what becomes of subscriptions."""
