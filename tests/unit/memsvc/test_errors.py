"""The error tree: every class can be told apart by a program."""

import pytest

from memsvc import errors


def _all_errors() -> list[type[errors.MemsvcError]]:
    found = [errors.MemsvcError]
    for parent in found:
        found += parent.__subclasses__()
    return [one for one in found if one.__module__ == errors.__name__]


def test_each_error_has_a_reason_of_its_own() -> None:
    """Proves that no two classes share a reason and each is UPPER_SNAKE."""
    reasons = [one.default_reason for one in _all_errors()]
    assert len(set(reasons)) == len(reasons)
    assert all(reason == reason.upper() and reason.replace("_", "").isalpha() for reason in reasons)


@pytest.mark.parametrize("error", _all_errors())
def test_an_error_carries_its_message_and_reason(error: type[errors.MemsvcError]) -> None:
    """Proves that a message alone makes an error, and that it reads as that message."""
    raised = error("expected 1, got 2")
    assert (str(raised), raised.reason) == ("expected 1, got 2", error.default_reason)


def test_a_class_with_several_reasons_takes_one() -> None:
    """Proves that a reason given replaces the class's own, on that instance only."""
    raised = errors.EmbeddingInvalid("expected 64 dimensions, got 63", reason="EMBEDDING_WRONG_DIMENSION")
    assert raised.reason == "EMBEDDING_WRONG_DIMENSION"
    assert errors.EmbeddingInvalid("expected finite").reason == "EMBEDDING_NOT_FINITE"


def test_the_outline_names_every_error_in_its_place() -> None:
    """Proves that the tree drawn at the module's head is the tree in the code."""
    drawn: dict[str, int] = {}
    for line in (errors.__doc__ or "").splitlines():
        if "-- " in line:
            stem, name = line.split("-- ", 1)
            drawn[name.split()[0]] = (len(stem) - len("    |")) // 4 + 1
    depths = {one.__name__: len(one.__mro__) - len(errors.MemsvcError.__mro__) for one in _all_errors()[1:]}
    assert drawn == depths
