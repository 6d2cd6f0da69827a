"""What Stripe tells by itself: an event is a reason to look at a customer anew, and nothing of what it says is believed.

So the order, the number and the age of events do not matter. What never arrives is looked for once a day.
"""

from typing import Any


def take(raw_body: bytes, signature_header: str) -> bool:
    """Take an event from the webhook, in the request's transaction; whether it was new and about a customer of ours.

    ``raw_body``: the bytes that were signed. Raises ValidationFailed for a signature that is not Stripe's or too old,
    and for what is no event; BillingNotConfigured.
    """
    raise NotImplementedError


def sweep() -> int:
    """Take the events of the last days that never arrived; how many. No transaction may be open. Raises StripeDown."""
    raise NotImplementedError
