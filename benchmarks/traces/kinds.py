"""Facts of six kinds for traces, from a seed; all of one call have different questions.

plain, names, numbers    one sentence, whose beginning is the question; the answer is a noun, a name, digits
look-alikes              the same, from families that differ in an adjective, a noun and a number only
paraphrases              the question shares no content word with the sentence
two-hop                  two sentences far apart: A is B's C, B lives in D; asked for A's place
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.facts import WORDINGS, Fact

KINDS = ("plain", "names", "numbers", "look-alikes", "paraphrases", "two-hop")

_FIRST = (
    "Orla Bertil Quincy Maren Tobias Ilse Hadrian Petra Cosmo Wilhelmina Anselm Freya Barnaby Sunniva Casimir Odette "
    "Lucan Ottilie Piers Rosalind Evander Greta Ignatius Linnea Magnus Nerys Oswin Philippa Roderick Thora"
).split()
_LAST = (
    "Fennimore Ashgrove Tolliver Brandt Okafor Lindqvist Marchetti Dunmore Halvorsen Pryce Castellan Whitlock "
    "Abernathy Birchwood Calloway Devereux Eastwick Farquhar Goldfinch Hathaway Inglewood Jankowski Kettering Lonsdale "
    "Merriweather Nakamura Ormsby Pemberton Quillfeather Rutherford"
).split()
_TOWN = (
    "Ravensburg Tullamore Ostrava Grimsby Valdemar Kirkwall Montrose Delft Trondheim Cordoba Szeged Perth Uppsala "
    "Verona Galway Bergen Lucerne Tartu Leuven Zadar"
).split()
_PLACE = (
    "lighthouse|observatory|flour mill|botanical garden|railway museum|old brewery|harbour office|chess club".split("|")
)
_THING = "silver compass|brass telescope|ivory flute|velvet cloak|copper kettle|amber necklace|wooden globe".split("|")
_CRAFT = "weaving glassblowing beekeeping fencing calligraphy pottery falconry archery".split()
_FLOWER = "tulips|lilies|dahlias|orchids|peonies|daffodils|asters|violets".split("|")
_ADJECTIVE = "quiet rusty gentle frozen hollow brave crooked golden distant humble velvet stormy".split()
_NOUN = "harbour lantern meadow anvil pigeon orchard violin glacier saddle teapot canyon ribbon".split()
_FAMILIES = (
    "One of the special magic numbers for {} is:",
    "The entry in the secret ledger under {} reads:",
    "The serial number engraved on the {} is:",
    "The winning lottery ticket of the club called {} was number",
    "In the catalogue of the auction the {} has the lot number",
)
# Shares of a home, so that B's place is A's.
_HOUSEMATE = "wife husband lodger housemate flatmate butler nanny cook".split()

# How the sentence names somebody, and how the question does.
SUBJECTS: tuple[tuple[str, str], ...] = tuple(
    (one, other)
    for one, _, other in (
        pair.partition(" = ")
        for pair in (
            "physician = doctor|cobbler = shoemaker|barber = hairdresser|sailor = seaman|lawyer = attorney|"
            "teacher = school instructor|innkeeper = hotel owner|thief = burglar|tailor = dressmaker|"
            "jailer = prison guard|author = writer|policeman = constable|priest = clergyman|violinist = fiddler|"
            "chauffeur = driver|astronomer = stargazer|millionaire = very rich person|beggar = homeless man|"
            "blacksmith = iron worker|midwife = birth attendant"
        ).split("|")
    )
)
# Sentence, the beginning that asks for the same in other words, and answers.
PARAPHRASES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("The {} keeps a {} in a cage", "The feathered pet owned by the {} is called a", ("parrot", "canary", "finch")),
    ("The {} was born in {}", "The {} came into the world, as a native, at", ("Ostrava", "Delft", "Perth")),
    ("The {} adores {}", "The favourite dish of the {} is", ("dumplings", "lasagne", "porridge")),
    ("The {} plays the {} every evening", "The musical instrument on which the {} practises is a", ("flute", "harp")),
    (
        "The {} earns a second income by selling {}",
        "To make extra money the {} trades in",
        ("honey", "carpets", "soap"),
    ),
    ("The {} suffers from {}", "The illness that troubles the {} is", ("gout", "asthma", "migraine")),
    ("The {} travels to work on a {}", "The vehicle the {} takes for commuting is a", ("tram", "bicycle", "ferry")),
    ("The {} is terrified of {}", "What frightens the {} most of all are", ("spiders", "snakes", "ghosts")),
    (
        "The {} painted the front door {}",
        "The colour of the house entrance belonging to the {} is",
        ("crimson", "teal"),
    ),
    ("The {} married a {}", "The occupation of whoever is the spouse of the {} is", ("dancer", "banker", "nurse")),
    ("The {} hid the jewels beneath the {}", "The place where the {} concealed some gems is the", ("stairs", "piano")),
    ("The {} speaks fluent {}", "The foreign language mastered by the {} is", ("Basque", "Finnish", "Welsh")),
)


@dataclass(frozen=True)
class MarkedFact:
    """Sentences to plant, the beginning of an answer that asks for them, and what a right answer contains."""

    kind: str
    sentences: tuple[str, ...]
    question: str
    answer: str


def make_facts(kind: str, seed: int, count: int) -> list[MarkedFact]:
    """`count` facts of a kind, with different questions.

    Raises:
        ValueError: No such kind, or it has not so many.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    rng = random.Random(f"{kind} {seed}")
    found: dict[str, MarkedFact] = {}
    for fact, _ in zip(_drawn(kind, rng), range(50 * count), strict=False):
        found.setdefault(fact.question, fact)
        if len(found) == count:
            return list(found.values())
    raise ValueError(f"facts: expected {count} different ones of kind {kind}, got {len(found)}")


def _drawn(kind: str, rng: random.Random) -> Iterator[MarkedFact]:
    """Facts without end, some of them twice."""
    if kind == "two-hop":
        yield from _two_hop(rng)
    while True:
        if kind == "paraphrases":
            sentence, question, answers = rng.choice(PARAPHRASES)
            (one, other), answer = rng.choice(SUBJECTS), rng.choice(answers)
            yield MarkedFact(kind, (f"{sentence.format(one, answer)}.",), question.format(other), answer)
        else:
            stem, answer = _look_alike(rng) if kind == "look-alikes" else rng.choice(_stems(kind))(rng)
            yield MarkedFact(kind, (f"{stem} {answer}.",), stem, answer)


def _two_hop(rng: random.Random) -> Iterator[MarkedFact]:
    people = [f"{first} {last}" for first in _FIRST for last in _LAST]
    rng.shuffle(people)
    for one, other in zip(people[::2], people[1::2], strict=True):
        home = rng.choice(_TOWN)
        hops = (f"{one} is {other}'s {rng.choice(_HOUSEMATE)}.", f"{other} lives in the town of {home}.")
        yield MarkedFact("two-hop", hops, f"{one} lives in the town of", home)


def _look_alike(rng: random.Random) -> tuple[str, str]:
    named = f"{rng.choice(_ADJECTIVE)}-{rng.choice(_NOUN)}"
    return rng.choice(_FAMILIES).format(named), str(rng.randrange(10**6, 10**7))


def _stems(kind: str) -> list[Callable[[random.Random], tuple[str, str]]]:
    """Wordings whose answer is of the kind: those of `benchmarks.facts`, and more with a larger choice."""
    own: dict[str, tuple[Callable[[random.Random], tuple[str, str]], ...]] = {
        "plain": (
            lambda r: (f"As a child {_person(r)} learned the art of", r.choice(_CRAFT)),
            lambda r: (f"The garden of {_person(r)} is full of", r.choice(_FLOWER)),
            lambda r: (f"{_person(r)} sold the {r.choice(_THING)} to the {r.choice(_PLACE)} of", r.choice(_TOWN)),
        ),
        "names": (
            lambda r: (f"The {r.choice(_PLACE)} of {r.choice(_TOWN)} was founded by", _person(r)),
            lambda r: (f"The {r.choice(_THING)} in the {r.choice(_PLACE)} was made by", _person(r)),
            lambda r: (f"The best friend of {_person(r)} is", _person(r)),
        ),
        "numbers": (
            lambda r: (
                f"The locker at the station of {r.choice(_TOWN)} that {_person(r)} rents has number",
                _digits(r),
            ),
            lambda r: (f"The library card of {_person(r)} has the number", _digits(r)),
            lambda r: (f"The price that {_person(r)} paid for the {r.choice(_THING)} was", _digits(r)),
        ),
    }
    existing = [_pair(wording) for wording in WORDINGS if _kind_of(wording(random.Random(0)).answer) == kind]
    return [*existing, *own[kind]]


def _pair(wording: Callable[[random.Random], Fact]) -> Callable[[random.Random], tuple[str, str]]:
    def drawn(rng: random.Random) -> tuple[str, str]:
        fact = wording(rng)
        return fact.question, fact.answer

    return drawn


def _kind_of(answer: str) -> str:
    if answer.isdigit():
        return "numbers"
    return "names" if answer[0].isupper() else "plain"


def _person(rng: random.Random) -> str:
    return f"{rng.choice(_FIRST)} {rng.choice(_LAST)}"


def _digits(rng: random.Random) -> str:
    return str(rng.randrange(10**4, 10**6))
