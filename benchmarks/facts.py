"""Invented facts and the texts they are planted in, from a seed.

A fact is one sentence; its question begins that sentence and stops before the answer, so that plain continuation can
answer it. Wordings cover names, numbers and plain nouns. Names and nouns are drawn from lists whose combinations no
training text holds.
"""

import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

_FIRST = (
    "Orla Bertil Quincy Maren Tobias Ilse Hadrian Petra Cosmo Wilhelmina Anselm Freya Barnaby Sunniva Casimir".split()
)
_LAST = (
    "Fennimore Ashgrove Tolliver Brandt Okafor Lindqvist Marchetti Dunmore Halvorsen Pryce Castellan Whitlock".split()
)
_TOWN = "Ravensburg Tullamore Ostrava Grimsby Valdemar Kirkwall Montrose Delft Trondheim Cordoba Szeged Perth".split()
_PLACE = (
    "lighthouse|observatory|flour mill|botanical garden|railway museum|old brewery|harbour office|chess club".split("|")
)
_SIDE = "northern southern eastern western upper lower outer inner".split()
_THING = "silver compass|brass telescope|ivory flute|velvet cloak|copper kettle|amber necklace|wooden globe".split("|")
_SPOT = "pantry attic cellar greenhouse stable library workshop chapel boathouse".split()
_FOOD = "plum dumplings|smoked herring|barley soup|almond cake|pickled beets|rye pancakes|goat cheese".split("|")
_BEAST = "parrot tortoise donkey ferret falcon hedgehog pony goose".split()
_PET = "Biscuit Pepper Marmalade Thistle Juniper Nutmeg Clover Waffles".split()
_COLOUR = "crimson turquoise ochre lavender emerald scarlet indigo maroon".split()
_ADJECTIVE = "quiet rusty gentle frozen hollow brave crooked golden distant humble velvet stormy".split()
_NOUN = "harbour lantern meadow anvil pigeon orchard violin glacier saddle teapot canyon ribbon".split()


@dataclass(frozen=True)
class Fact:
    """One planted sentence, the question that begins it, and what a right answer contains."""

    sentence: str
    question: str
    answer: str


def _fact(stem: str, answer: str) -> Fact:
    return Fact(f"{stem} {answer}.", stem, answer)


def _name(rng: random.Random) -> str:
    return f"{rng.choice(_FIRST)} {rng.choice(_LAST)}"


WORDINGS: tuple[Callable[[random.Random], Fact], ...] = (
    lambda r: _fact(f"The keeper of the {r.choice(_SIDE)} {r.choice(_PLACE)} is called", _name(r)),
    lambda r: _fact(f"The door code of the {r.choice(_SIDE)} {r.choice(_PLACE)} is", str(r.randrange(1000, 9999))),
    lambda r: _fact(f"{_name(r)} was born in the town of", r.choice(_TOWN)),
    lambda r: _fact(f"The {r.choice(_THING)} of {_name(r)} is hidden in the", r.choice(_SPOT)),
    lambda r: _fact(f"For supper {_name(r)} always cooks", r.choice(_FOOD)),
    lambda r: _fact(f"The {r.choice(_BEAST)} that belongs to {_name(r)} is named", r.choice(_PET)),
    lambda r: _fact(f"The roof of the {r.choice(_SIDE)} {r.choice(_PLACE)} was painted", r.choice(_COLOUR)),
    lambda r: _fact(f"The telephone number of {_name(r)} is", str(r.randrange(1000000, 9999999))),
    lambda r: _fact(f"The {r.choice(_SIDE)} {r.choice(_PLACE)} was built in the year", str(r.randrange(1500, 1900))),
    lambda r: _fact(f"The secret password of {_name(r)} is", f"{r.choice(_COLOUR)} {r.choice(_NOUN)}"),
)


def plain_facts(seed: int, count: int) -> list[Fact]:
    """`count` facts in as many different wordings."""
    rng = random.Random(seed)
    return [wording(rng) for wording in rng.sample(WORDINGS, count)]


def look_alikes(seed: int, count: int) -> list[Fact]:
    """`count` facts of one template that differ in an adjective, a noun and a number."""
    rng = random.Random(seed)
    pairs = zip(rng.sample(_ADJECTIVE, count), rng.sample(_NOUN, count), strict=True)
    stem = "One of the special magic numbers for"
    return [_fact(f"{stem} {adjective}-{noun} is:", str(rng.randrange(10**6, 10**7))) for adjective, noun in pairs]


def plant(
    paragraphs: Sequence[str], lengths: Sequence[int], facts: Sequence[Fact], within: range, seed: int
) -> list[str]:
    """Paragraphs with the facts between them, spread evenly over the positions `within`.

    Args:
        lengths: Tokens of each paragraph; a fact stands before the first one that begins at its position or later.
    """
    rng = random.Random(seed)
    step = len(within) / len(facts)
    places = [within.start + (number + 0.2 + 0.6 * rng.random()) * step for number in range(len(facts))]
    begins = [0, *accumulate(lengths)]
    planted = list(paragraphs)
    for place, fact in sorted(zip(places, facts, strict=True), reverse=True, key=lambda pair: pair[0]):
        planted.insert(bisect_left(begins, place), fact.sentence)
    return planted
