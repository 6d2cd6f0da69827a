"""Stripe's test cards by their payment-method tokens: https://docs.stripe.com/testing."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Decline:
    """Why a card is refused, as an error tells it."""

    code: str
    decline_code: str | None
    message: str


@dataclass(frozen=True)
class Card:
    """``attach``: refused when it is given to a customer; ``charge``: refused when it is to pay.

    ``confirm``: ``always`` (3-D Secure for each payment) or ``once`` (no more after it has been set up).
    """

    brand: str
    last4: str
    attach: Decline | None = None
    charge: Decline | None = None
    confirm: Literal["never", "once", "always"] = "never"


def _declined(reason: str) -> Decline:
    return Decline("card_declined", reason, "Your card was declined.")


_INSUFFICIENT = Decline("card_declined", "insufficient_funds", "Your card has insufficient funds.")
_EXPIRED = Decline("expired_card", None, "Your card has expired.")
_CVC = Decline("incorrect_cvc", None, "Your card's security code is incorrect.")
_PROCESSING = Decline("processing_error", None, "An error occurred while processing your card. Try again later.")


def _refused(last4: str, decline: Decline) -> Card:
    return Card("visa", last4, attach=decline, charge=decline)


CARDS = {
    "pm_card_visa": Card("visa", "4242"),
    "pm_card_visa_debit": Card("visa", "5556"),
    "pm_card_us": Card("visa", "4242"),
    "pm_card_mastercard": Card("mastercard", "4444"),
    "pm_card_amex": Card("amex", "8431"),
    "pm_card_discover": Card("discover", "9424"),
    "pm_card_chargeDeclined": _refused("0002", _declined("generic_decline")),
    "pm_card_visa_chargeDeclined": _refused("0002", _declined("generic_decline")),
    "pm_card_chargeDeclinedInsufficientFunds": _refused("9995", _INSUFFICIENT),
    "pm_card_visa_chargeDeclinedInsufficientFunds": _refused("9995", _INSUFFICIENT),
    "pm_card_chargeDeclinedLostCard": _refused("9987", _declined("lost_card")),
    "pm_card_chargeDeclinedStolenCard": _refused("9979", _declined("stolen_card")),
    "pm_card_chargeDeclinedFraudulent": _refused("0019", _declined("fraudulent")),
    "pm_card_chargeDeclinedExpiredCard": _refused("0069", _EXPIRED),
    "pm_card_chargeDeclinedIncorrectCvc": _refused("0127", _CVC),
    "pm_card_chargeDeclinedProcessingError": _refused("0119", _PROCESSING),
    "pm_card_chargeCustomerFail": Card("visa", "0341", charge=_declined("generic_decline")),
    "pm_card_authenticationRequired": Card("visa", "3184", confirm="always"),
    "pm_card_threeDSecure2Required": Card("visa", "3220", confirm="always"),
    "pm_card_threeDSecureRequired": Card("visa", "3063", confirm="always"),
    "pm_card_authenticationRequiredOnSetup": Card("visa", "3155", confirm="once"),
    "pm_card_authenticationRequiredChargeDeclinedInsufficientFunds": Card(
        "visa", "8260", charge=_INSUFFICIENT, confirm="always"
    ),
}


def by_token(token: str) -> Card | None:
    """The card of ``pm_card_…`` or of the older ``tok_…``."""
    return CARDS.get(f"pm_card_{token[4:]}" if token.startswith("tok_") else token)
