"""Bearer secrets: random, recognised by their digest alone, and never kept."""

import dataclasses
import hashlib

import pytest

from memsvc.auth.bearer import SECRET_BYTES_MAX, bearer_id, matches, new_bearer
from memsvc.auth.caller import Scope

READ = frozenset({Scope.READ})


def test_a_secret_is_random_and_its_record_does_not_hold_it() -> None:
    """Proves that secrets differ in id and rest, carry 256 bits, and that a record has the digest only."""
    made = [new_bearer("acme", READ, None) for _ in range(100)]
    assert len({secret.split("_", 2)[2] for secret, _ in made}) == len({record.id for _, record in made}) == 100
    for secret, record in made:
        head, key, rest = secret.split("_", 2)
        assert (head, key, len(rest)) == ("ms1", record.id, 43)
        assert record.sha256 == hashlib.sha256(secret.encode()).hexdigest()
        assert rest not in repr(dataclasses.asdict(record))


def test_only_the_secret_itself_matches() -> None:
    """Proves that one other character anywhere, one more or one less, is another secret."""
    secret, record = new_bearer("acme", READ, None)
    assert matches(secret, record)
    assert not matches(secret, None)
    for at in range(len(secret)):
        other = "A" if secret[at] != "A" else "B"
        assert not matches(secret[:at] + other + secret[at + 1 :], record)
    assert not matches(secret + "A", record)
    assert not matches(secret[:-1], record)


@pytest.mark.parametrize("secret", ["", "_", "__", "ms1", "ms1_", "ms2_0123_rest", "ms1_" + "a" * SECRET_BYTES_MAX])
def test_what_is_no_secret_has_no_id(secret: str) -> None:
    """Proves that text of another form or length finds no record, and is compared all the same."""
    assert bearer_id(secret) == ""
    assert not matches(secret, None)


def test_an_id_is_read_from_the_secret() -> None:
    """Proves that the public part finds the record, whatever the rest holds."""
    secret, record = new_bearer("acme", READ, None)
    assert bearer_id(secret) == record.id
    assert bearer_id(f"ms1_{record.id}_a_b_c") == record.id


def test_a_secret_of_any_characters_is_compared_without_an_error() -> None:
    """Proves that lone surrogates and null bytes are just another secret."""
    _, record = new_bearer("acme", READ, None)
    assert not matches("ms1_\ud800_\x00", record)
