"""The error tree of the model side."""

import pytest

from attn_client import errors


def _all_errors() -> list[type[errors.AttnClientError]]:
    found: list[type[errors.AttnClientError]] = [errors.AttnClientError]
    for parent in found:
        found += parent.__subclasses__()
    return [one for one in found if one.__module__ == errors.__name__]


def test_the_outline_names_every_error_in_its_place() -> None:
    """Proves that the tree drawn at the module's head is the tree in the code."""
    drawn: dict[str, int] = {}
    for line in (errors.__doc__ or "").splitlines():
        if "-- " in line:
            stem, name = line.split("-- ", 1)
            drawn[name.split()[0]] = (len(stem) - len("    |")) // 4 + 1
    depths = {one.__name__: len(one.__mro__) - len(errors.AttnClientError.__mro__) for one in _all_errors()[1:]}
    assert drawn == depths


@pytest.mark.parametrize("error", [one for one in _all_errors() if one is not errors.MemoryRefused])
def test_an_error_reads_as_its_message(error: type[errors.AttnClientError]) -> None:
    """Proves that a message alone makes an error."""
    assert str(error("expected 1, got 2")) == "expected 1, got 2"


def test_a_refusal_carries_the_word_of_the_server() -> None:
    """Proves that a program reads the reason and a person the message."""
    refused = errors.MemoryRefused("SESSION_HAS_WRITER", "expected no writer, got one")
    assert (refused.reason, str(refused)) == ("SESSION_HAS_WRITER", "expected no writer, got one")
