"""Roles: owner > admin > operator > viewer."""

from enum import StrEnum


class Role(StrEnum):
    """What a member or an API key may do; each includes those after it."""

    OWNER = "owner"
    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"

    def includes(self, other: "Role") -> bool:
        """Whether whoever holds this role may do what ``other`` may."""
        return other in _INCLUDED[self]


_INCLUDED = {role: frozenset(list(Role)[number:]) for number, role in enumerate(Role)}
