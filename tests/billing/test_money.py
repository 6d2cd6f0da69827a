"""Amounts are whole numbers of a currency's least unit."""

import pytest

from app.billing.money import decimals, formatted


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [
        (4900, "eur", "€49.00"),
        (4900, "USD", "$49.00"),
        (5, "gbp", "£0.05"),
        (0, "eur", "€0.00"),
        (123_456_789, "usd", "$1,234,567.89"),
        (-250, "eur", "-€2.50"),
        (-5, "eur", "-€0.05"),
        (4900, "chf", "CHF 49.00"),
        (4900, "jpy", "¥4,900"),
        (-4900, "krw", "-KRW 4,900"),
        (1234, "kwd", "KWD 1.234"),
        (1_000_050, "bhd", "BHD 1,000.050"),
        # Stripe counts hundredths of these, though nobody pays with them.
        (500, "ugx", "UGX 5.00"),
        (9_007_199_254_740_993, "eur", "€90,071,992,547,409.93"),  # one more than a float holds
    ],
)
def test_an_amount_is_shown_in_its_currency(amount: int, currency: str, shown: str) -> None:
    assert formatted(amount, currency) == shown


def test_currencies_have_their_own_number_of_decimals() -> None:
    assert [decimals(one) for one in ("jpy", "EUR", "tnd")] == [0, 2, 3]
