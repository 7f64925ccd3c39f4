"""One family of errors: what happened, the value at fault, what to do about it.

The page, the CLI and the gateway each render these in their own form. This module imports
nothing, because the gateway imports it.
"""

from __future__ import annotations


class BudError(Exception):
    """An error a person can act on.

    Args:
        what: One sentence that says what happened.
        value: The value at fault, as the person gave it; never a secret.
        remedy: One sentence that says what to do next.
    """

    code = "internal_error"
    http_status = 500
    exit_code = 1

    def __init__(self, what: str, *, value: object = None, remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.value = value
        self.remedy = remedy

    def __str__(self) -> str:
        parts = [self.what]
        if self.value is not None and str(self.value) not in self.what:
            parts.append(f"(got: {self.value})")
        if self.remedy:
            parts.append(self.remedy)
        return " ".join(parts)


class InvalidInput(BudError):
    """The request itself is wrong."""

    code = "invalid_input"
    http_status = 400
    exit_code = 2


class NotAuthenticated(BudError):
    """Nobody is logged in, or the credential is wrong."""

    code = "not_authenticated"
    http_status = 401
    exit_code = 3


class PermissionDenied(BudError):
    """The actor may not do this."""

    code = "permission_denied"
    http_status = 403
    exit_code = 3


class NotFound(BudError):
    """There is no such thing, or the actor may not know of it."""

    code = "not_found"
    http_status = 404
    exit_code = 4


class Conflict(BudError):
    """The state of the thing does not allow this now."""

    code = "conflict"
    http_status = 409
    exit_code = 5


class NoCapacity(Conflict):
    """It does not fit: the message carries what is needed and what is free."""

    code = "no_capacity"


class TooLarge(BudError):
    """The request is over a size limit."""

    code = "too_large"
    http_status = 413
    exit_code = 2


class RateLimited(BudError):
    """Too many requests; `retry_after_s` says when to come back."""

    code = "rate_limited"
    http_status = 429
    exit_code = 6

    def __init__(
        self, what: str, *, retry_after_s: float, value: object = None, remedy: str = ""
    ) -> None:
        super().__init__(what, value=value, remedy=remedy)
        self.retry_after_s = retry_after_s


class UpstreamFailed(BudError):
    """A system Bud depends on answered wrongly or broke off."""

    code = "upstream_failed"
    http_status = 502
    exit_code = 7


class Unavailable(BudError):
    """Not now: it is starting, stopping, or out of reach."""

    code = "unavailable"
    http_status = 503
    exit_code = 7


class KeyProblem(BudError):
    """A sealed value cannot be opened, or a key file is missing or unsafe."""

    code = "key_problem"
