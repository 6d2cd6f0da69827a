"""What came of one try to tell a channel."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """``error`` is for the people who set the channel up: what went wrong, without a secret. None: it was delivered.

    ``permanent``: trying again would not help. ``status_code``: a webhook's HTTP status, a mail server's reply code.
    ``note``: what they should know although it was delivered.
    """

    error: str | None = None
    status_code: int | None = None
    permanent: bool = False
    note: str | None = None

    @property
    def delivered(self) -> bool:
        return self.error is None
