"""Amounts for people. Pure.

An amount is a whole number of its currency's least unit, as Stripe counts them:
https://docs.stripe.com/currencies#minor-units (of UGX and ISK it counts hundredths, although nobody pays with them).
"""

_NO_DECIMALS = frozenset(
    ("BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF")
)
_THREE_DECIMALS = frozenset(("BHD", "JOD", "KWD", "OMR", "TND"))
_SYMBOLS = {"EUR": "€", "GBP": "£", "JPY": "¥", "USD": "$"}
"""Only those that mean one currency here; others are named by their code."""


def decimals(currency: str) -> int:
    """How many digits of an amount stand behind the point; ``currency`` in either case."""
    code = currency.upper()
    return 0 if code in _NO_DECIMALS else 3 if code in _THREE_DECIMALS else 2


def formatted(amount: int, currency: str) -> str:
    """``4900, "eur"`` → ``€49.00``; ``-123456, "jpy"`` → ``-¥123,456``; ``1234, "kwd"`` → ``KWD 1.234``."""
    code, digits = currency.upper(), decimals(currency)
    # By whole numbers: a float would lose pence of large sums.
    whole, rest = divmod(abs(amount), 10**digits)
    number = f"{whole:,}.{rest:0{digits}}" if digits else f"{whole:,}"
    return f"{'-' if amount < 0 else ''}{_SYMBOLS.get(code, f'{code} ')}{number}"
