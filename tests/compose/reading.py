"""What the workers read and are asked: the Python language reference, with facts in it that no training text holds."""

import pydoc_data.topics
from dataclasses import dataclass


@dataclass(frozen=True)
class Fact:
    """The beginning of a sentence, which is the question, and its end."""

    question: str
    answer: str


FACTS = (
    Fact("The door code of the old observatory is", "4971"),
    Fact("The parrot that belongs to Maren Tolliver is named", "Marmalade"),
    Fact("The keeper of the northern lighthouse is called", "Orla Fennimore"),
)


def text_with_facts(characters: int, begin: int = 0) -> str:
    """So much of the reference, the facts spread over its first two thirds: far behind the window at the end.

    Args:
        begin: Character of the reference to begin at, so that two texts differ.
    """
    topics = pydoc_data.topics.topics
    reference = "\n\n".join(topics[name] for name in sorted(topics))[begin : begin + characters]
    paragraphs = reference.split("\n\n")
    for number, fact in reversed(list(enumerate(FACTS))):
        place = (number + 1) * len(paragraphs) * 2 // (3 * (len(FACTS) + 1))
        paragraphs.insert(place, f"{fact.question} {fact.answer}.")
    return "\n\n".join(paragraphs)
