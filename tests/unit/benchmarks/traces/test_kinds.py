"""The facts that traces plant: as many as asked for, all different, and of their kind."""

import re

import pytest

from benchmarks.traces.kinds import KINDS, PARAPHRASES, SUBJECTS, make_facts

# Words that carry no content.
_EMPTY = frozenset(
    "the a an of in on at is are was by to for as some most all more with whom whoever what which".split()
)


@pytest.mark.parametrize("kind", KINDS)
def test_two_hundred_facts_of_a_kind_are_different(kind: str) -> None:
    """Proves that 200 facts have 200 questions and no sentence twice, and are a function of the seed."""
    facts = make_facts(kind, 5, 200)
    sentences = [sentence for fact in facts for sentence in fact.sentences]
    assert len({fact.question for fact in facts}) == 200
    assert len(set(sentences)) == len(sentences)
    assert facts == make_facts(kind, 5, 200)
    assert facts != make_facts(kind, 6, 200)
    assert all(any(fact.answer in sentence for sentence in fact.sentences) for fact in facts)


def test_a_paraphrase_shares_no_content_word() -> None:
    """Proves it for every template with every person, over the stems of words: five letters at most."""
    for sentence, question, answers in PARAPHRASES:
        for one, other in SUBJECTS:
            for answer in answers:
                said, asked = _content(sentence.format(one, answer)), _content(question.format(other))
                assert not said & asked, (sentence, question, said & asked)


def test_a_two_hop_question_names_one_person_only() -> None:
    """Proves that the answer stands in the second sentence only, and who links the two is in both and not asked."""
    for fact in make_facts("two-hop", 1, 200):
        first, second = fact.sentences
        asked, linking = first.split(" is ")[0], second.split(" lives ")[0]
        assert f" {linking}'s " in first
        assert asked in fact.question
        assert linking not in fact.question
        assert fact.answer not in first
        assert second.endswith(f"{fact.answer}.")


@pytest.mark.parametrize(("kind", "digits"), [("numbers", True), ("look-alikes", True), ("names", False)])
def test_answers_are_of_their_kind(kind: str, digits: bool) -> None:
    """Proves that numbers are asked for digits and names for capitals."""
    answers = [fact.answer for fact in make_facts(kind, 2, 100)]
    assert all(answer.isdigit() is digits and (digits or answer[0].isupper()) for answer in answers)


def test_more_facts_than_there_are_is_one_line() -> None:
    """Proves that an unknown kind and too large a number are refused by name."""
    with pytest.raises(ValueError, match="facts: expected 500 different ones of kind paraphrases, got 240"):
        make_facts("paraphrases", 1, 500)
    with pytest.raises(ValueError, match=r"kind: expected one of plain, .*, got 'odd'"):
        make_facts("odd", 1, 1)


def _content(text: str) -> set[str]:
    return {word[:5] for word in re.findall(r"[a-z]+", text.lower()) if word not in _EMPTY}
