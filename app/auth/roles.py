"""Roles: owner > admin > operator > viewer."""

from enum import StrEnum


class Role(StrEnum):
    """What a member or an API key may do; each includes those after it."""

    OWNER = "owner"
    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"

    @property
    def rank(self) -> int:
        return list(Role)[::-1].index(self)

    def includes(self, other: "Role") -> bool:
        """Whether whoever holds this role may do what ``other`` may."""
        return self.rank >= other.rank
