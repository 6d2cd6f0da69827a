"""Amounts for people, as Stripe counts them: https://docs.stripe.com/currencies#minor-units."""

_NO_DECIMALS = (
    "BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF",
)  # fmt: skip
_THREE_DECIMALS = ("BHD", "JOD", "KWD", "OMR", "TND")
_SYMBOLS = {"EUR": "€", "GBP": "£", "JPY": "¥", "USD": "$"}


def shown(amount: int, currency: str) -> str:
    """``4900, "eur"`` → ``€49.00``."""
    code = currency.upper()
    digits = 0 if code in _NO_DECIMALS else 3 if code in _THREE_DECIMALS else 2
    whole, rest = divmod(abs(amount), 10**digits)
    number = f"{whole:,}.{rest:0{digits}}" if digits else f"{whole:,}"
    return f"{'-' if amount < 0 else ''}{_SYMBOLS.get(code, f'{code} ')}{number}"
