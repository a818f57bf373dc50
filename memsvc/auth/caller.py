"""Who makes a call, once its credential is known."""

import enum
from dataclasses import dataclass

from memsvc.errors import PermissionDenied


class Scope(enum.StrEnum):
    """What a credential may do.

    READ lists sessions, opens views and reads blocks; WRITE makes sessions and writes them; ADMIN deletes them; INSPECT
    reads what they hold: bookmarks, links, token ids, explanations.
    """

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"
    INSPECT = "inspect"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose call it is, and what that credential may do.

    Args:
        tenant: Empty on a server without credentials, where everybody may do everything.
    """

    tenant: str
    scopes: frozenset[Scope]

    def require(self, any_of: frozenset[Scope]) -> None:
        """Raises PermissionDenied unless the credential has one of the scopes."""
        if not self.scopes & any_of:
            expected, came = (" or ".join(sorted(one)) or "none" for one in (any_of, self.scopes))
            raise PermissionDenied(f"expected a credential with scope {expected}, got one with {came}")


def anyone() -> Caller:
    """The caller of a server without credentials."""
    return Caller("", frozenset(Scope))
