"""A server's numbers as its /metrics page shows them, read back: what went on between two looks at it.

Must not know: HTTP.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

# Labels of a number, in order of their names.
Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Numbers:
    """All numbers at one time.

    Args:
        at_s: When they were fetched, by a clock that does not jump.
        values: By name, then by labels.
    """

    at_s: float
    values: Mapping[str, Mapping[Labels, float]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, at_s: float) -> "Numbers":
        """Numbers of a page. Raises ValueError where it is no such page."""
        from prometheus_client.parser import text_string_to_metric_families

        values: dict[str, dict[Labels, float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                values.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
        return cls(at_s, values)

    def get(self, name: str, **labels: str) -> float:
        """One number; 0 where nothing was counted yet."""
        return self.values.get(name, {}).get(tuple(sorted(labels.items())), 0.0)

    def sum(self, name: str) -> float:
        """A number over all its labels."""
        return sum(self.values.get(name, {}).values())

    def labelled(self, name: str, label: str) -> Iterator[str]:
        """Values of one label of a number, in order."""
        yield from sorted({dict(labels)[label] for labels in self.values.get(name, {})})


@dataclass(frozen=True)
class Times:
    """A duration over a stretch of time.

    Args:
        per_s: How often a second it was measured.
        half_s, most_s: Half of them, and 99 of 100, took at most about so long; None where there were none.
    """

    per_s: float
    half_s: float | None
    most_s: float | None


@dataclass(frozen=True)
class Stretch:
    """Between two looks; the first may be one that saw nothing, at the server's start."""

    before: Numbers
    now: Numbers

    @property
    def seconds(self) -> float:
        """How long it was."""
        return max(1e-9, self.now.at_s - self.before.at_s)

    def rate(self, name: str, **labels: str) -> float:
        """A counter's rise a second; over all labels, where none is named."""
        if labels:
            rise = self.now.get(name, **labels) - self.before.get(name, **labels)
        else:
            rise = self.now.sum(name) - self.before.sum(name)
        # A server that was started again counts from 0.
        return max(0.0, rise) / self.seconds

    def times(self, name: str, **labels: str) -> Times:
        """What a histogram says of the stretch, over all labels that are not named."""
        wanted = set(labels.items())
        risen: dict[float, float] = {}
        for own, count in self.now.values.get(f"{name}_bucket", {}).items():
            named = dict(own)
            end = float(named.pop("le"))
            if wanted <= set(named.items()):
                earlier = self.before.values.get(f"{name}_bucket", {}).get(own, 0.0)
                risen[end] = risen.get(end, 0.0) + max(0.0, count - earlier)
        counted = max(risen.values(), default=0.0)
        return Times(counted / self.seconds, _quantile(0.5, risen), _quantile(0.99, risen))


def _quantile(share: float, below: Mapping[float, float]) -> float | None:
    """Upper bound of so large a share, by a straight line within its bucket, as Prometheus reckons it.

    Args:
        below: How many were at most so long, by the buckets' upper ends.
    """
    counted = max(below.values(), default=0.0)
    if not counted:
        return None
    low, before = 0.0, 0.0
    for end in sorted(below):
        if below[end] >= share * counted:
            inside = below[end] - before
            # Above the highest end there is no line to go along.
            return low if math.isinf(end) else low + (end - low) * (share * counted - before) / inside
        low, before = end, below[end]
    return low
