"""Stripe's errors: https://docs.stripe.com/api/errors."""

from typing import Any


class StripeError(Exception):
    """An answer that is not 2xx. ``keep``: what was done before it stays (a declined payment has been attempted)."""

    def __init__(self, status: int, type: str, message: str, *, keep: bool = False, **fields: Any) -> None:
        super().__init__(message)
        self.status, self.type, self.message, self.keep = status, type, message, keep
        self.fields = {name: value for name, value in fields.items() if value is not None}

    def body(self) -> dict[str, Any]:
        """``{error: {type, message, code?, param?, decline_code?, …}}``."""
        error = {"message": self.message, "type": self.type, **self.fields}
        if "code" in error:
            error["doc_url"] = f"https://stripe.com/docs/error-codes/{str(error['code']).replace('_', '-')}"
        return {"error": error}


class ParameterError(StripeError):
    """Refused before anything was begun: such an answer is not remembered under an idempotency key."""


def invalid(message: str, param: str | None = None, code: str | None = None) -> StripeError:
    """400: what is asked for cannot be done as things are."""
    return StripeError(400, "invalid_request_error", message, param=param, code=code)


def malformed(message: str, param: str | None = None, code: str | None = None) -> ParameterError:
    """400: a parameter is unknown or of a wrong form."""
    return ParameterError(400, "invalid_request_error", message, param=param, code=code)


def missing(param: str) -> ParameterError:
    """400: a required parameter is not there."""
    return malformed(f"Missing required param: {param}.", param, "parameter_missing")


def no_such(kind: str, id: str, param: str = "id", status: int = 400) -> StripeError:
    """What is named does not exist: 404 where it is in the path, 400 in a parameter."""
    message = f"No such {kind.rpartition('.')[2]}: '{id}'"
    return StripeError(status, "invalid_request_error", message, code="resource_missing", param=param)


def card_error(
    code: str, message: str, decline_code: str | None = None, *, keep: bool = False, **fields: Any
) -> StripeError:
    """402: the card said no."""
    return StripeError(402, "card_error", message, code=code, decline_code=decline_code, keep=keep, **fields)
