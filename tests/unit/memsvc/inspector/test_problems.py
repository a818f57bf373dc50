"""Errors over HTTP."""

from memsvc import errors
from memsvc.inspector.problems import status_of
from memsvc.rpc.errors import ServerDraining


def test_every_error_has_a_status() -> None:
    """Proves that each class of the tree is answered, and which ones a client may tell apart."""
    known = {one: status_of(one("expected a, got b")) for one in _tree(errors.MemsvcError)}
    assert set(known.values()) <= {400, 401, 403, 404, 409, 429, 500, 503, 504}
    assert (known[errors.SessionNotFound], known[errors.RecallNotFound]) == (404, 404)
    assert (known[errors.QuotaExceeded], known[errors.LimitExceeded]) == (429, 400)
    assert known[errors.CorruptLog] == 500
    assert status_of(ServerDraining("expected a, got b")) == 500


def _tree(root: type[errors.MemsvcError]) -> list[type[errors.MemsvcError]]:
    return [one for own in root.__subclasses__() for one in (own, *_tree(own)) if one is not ServerDraining]
