"""The one error family: every failure that a user sees is an AppError, and one handler writes it."""

from typing import Any, ClassVar


class AppError(Exception):
    """A failure with its HTTP status and stable code.

    ``extra`` fields stand beside the fixed ones in the body (``details``, ``current_state``, ``quota`` …).
    ``keeps_changes`` tells the transaction to commit although the request fails (a revoked token family, say).
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "INTERNAL_ERROR"
    keeps_changes: ClassVar[bool] = False

    def __init__(self, message: str, *, headers: dict[str, str] | None = None, **extra: Any) -> None:
        super().__init__(message)
        self.message = message
        self.headers = headers or {}
        self.extra = extra

    def body(self) -> dict[str, Any]:
        return {"error": self.message, "code": self.code, "status": self.status, **self.extra}


class ValidationFailed(AppError):
    """400; ``details`` is ``{field: [message]}``."""

    status, code = 400, "VALIDATION_ERROR"

    def __init__(self, message: str = "the request is not valid", **extra: Any) -> None:
        super().__init__(message, **{"details": {}, **extra})


class Unauthorized(AppError):
    status, code = 401, "UNAUTHORIZED"

    def __init__(self, message: str = "missing or invalid credentials", **extra: Any) -> None:
        super().__init__(message, headers={"WWW-Authenticate": "Bearer"}, **extra)


class QuotaExceeded(AppError):
    """402; wants ``quota``, ``limit`` and ``used``."""

    status, code = 402, "QUOTA_EXCEEDED"


class PaymentFailed(AppError):
    """402: Stripe or the bank refused; ``decline_code`` is Stripe's, if there is one."""

    status, code = 402, "PAYMENT_FAILED"


class Forbidden(AppError):
    status, code = 403, "FORBIDDEN"


class NotFound(AppError):
    """404; ``NotFound("flow")`` says "flow not found"."""

    status, code = 404, "NOT_FOUND"

    def __init__(self, what: str = "resource", **extra: Any) -> None:
        super().__init__(f"{what} not found", **extra)


class Conflict(AppError):
    status, code = 409, "CONFLICT"


class InvalidState(AppError):
    """409; wants ``current_state`` and ``allowed_actions``."""

    status, code = 409, "INVALID_STATE"


class VersionConflict(AppError):
    """409; wants ``current_version``."""

    status, code = 409, "VERSION_CONFLICT"


class TooLarge(AppError):
    status, code = 413, "PAYLOAD_TOO_LARGE"


class UnsupportedMediaType(AppError):
    status, code = 415, "UNSUPPORTED_MEDIA_TYPE"


class RateLimited(AppError):
    status, code = 429, "RATE_LIMITED"


class NotSupportedByDevice(AppError):
    status, code = 501, "NOT_SUPPORTED_BY_DEVICE"


class DeviceError(AppError):
    """502: the device answered with an error, whose text and code stand in ``device_error``."""

    status, code = 502, "DEVICE_ERROR"


class DeviceDisconnected(AppError):
    """502: the socket went while the command was under way; ``outcome`` is ``unknown`` or ``not_sent``."""

    status, code = 502, "DEVICE_DISCONNECTED"


class BadDeviceResponse(AppError):
    status, code = 502, "BAD_DEVICE_RESPONSE"


class ServiceUnavailable(AppError):
    status, code = 503, "SERVICE_UNAVAILABLE"

    def __init__(self, message: str = "the service is briefly unavailable", retry_after: int = 2, **extra: Any) -> None:
        super().__init__(message, headers={"Retry-After": str(retry_after)}, **extra)


class BillingNotConfigured(AppError):
    """503 of what needs Stripe, where there is none."""

    status, code = 503, "BILLING_NOT_CONFIGURED"

    def __init__(self, message: str = "this installation does no billing", **extra: Any) -> None:
        super().__init__(message, **extra)


class EditorNotConfigured(AppError):
    """503 of an installation that was not told where its editors are."""

    status, code = 503, "EDITOR_NOT_CONFIGURED"


class DeviceOffline(AppError):
    """503; carries ``last_seen_at``."""

    status, code = 503, "DEVICE_OFFLINE"


class DeviceTimeout(AppError):
    """504; ``outcome`` is always ``unknown``: the command may still be carried out."""

    status, code = 504, "DEVICE_TIMEOUT"
