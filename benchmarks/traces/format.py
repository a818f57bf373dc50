"""A trace on disk: one folder of raw arrays, the marked facts, and a header that says what they are.

    header.json         what made it, each array's file, type, shape and CRC32C, the facts' CRC32C, its own CRC32C
    facts.json          the marked facts
    codes-6.i8          one row a token: the embedding at layer 6, divided by its scale       int8    [rows, dims]
    scales-6.f32        the scale of each row                                                 float32 [rows]
    surprisal.f32       nats                                                                  float32 [rows]
    attention_mass.f32  as attn_client.mass defines it; only if the header names its layer    float32 [rows]
    ids.u32             token ids                                                             uint32  [rows]

Rows are tokens: the text, then the unrelated text, then the tokens of one question after the other, each as it reads
right after the unrelated text.

Invariants:
    The header is written last: a folder without one is no trace.
    Arrays are little-endian, row-major and memory-mapped read-only.
Must not know: models, servers.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import google_crc32c
import numpy as np
import numpy.typing as npt

FORMAT = "bookmark-trace"
VERSION = 1
HEADER, FACTS = "header.json", "facts.json"
SURPRISAL, MASS, IDS = "surprisal", "attention_mass", "ids"
# Bytes that a checksum is taken over at once.
_PIECE_BYTES = 1 << 24

Float32Array = npt.NDArray[np.float32]
AnyArray = npt.NDArray[np.generic]
Record = TypeVar("Record")


class TraceError(Exception):
    """A folder is no trace, or not the one that was written. One line: what was expected, what came, where."""


@dataclass(frozen=True)
class TracedFact:
    """A planted fact, where it stands, and where its question's rows are.

    Args:
        kind: One of `benchmarks.traces.kinds.KINDS`.
        sentences: One, or several where only all of them answer the question.
        gold: Blocks of 64 tokens that each sentence touches.
        question_first: First row of the question.
        question_tokens: Rows of it.
    """

    kind: str
    sentences: tuple[str, ...]
    question: str
    answer: str
    gold: tuple[tuple[int, ...], ...]
    question_first: int
    question_tokens: int


@dataclass(frozen=True)
class Source:
    """What made a trace.

    Args:
        label: Texts and their seed, for people.
        text_tokens: Rows of the text, from 0.
        unrelated_tokens: Rows of the unrelated text after it.
        salience_vocabulary: Token ids that surprisal is normalised over; 0: all.
        mass_layer: Where attention mass was taken; None in a trace without.
    """

    model: str
    tokenizer: str
    layers: tuple[int, ...]
    dims: int
    text_tokens: int
    unrelated_tokens: int
    sink_tokens: int
    window_tokens: int
    chunk_tokens: int
    salience_vocabulary: int
    seeds: tuple[int, ...]
    label: str
    device: str
    mass_layer: int | None = None


@dataclass(frozen=True)
class ArrayFile:
    """One array of a trace: its file, numpy type, shape and checksum."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    crc32c: int

    @property
    def size(self) -> int:
        """Bytes that the file has to have."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Trace:
    """An opened trace. Arrays are mapped: reading a slice reads that slice."""

    folder: Path
    source: Source
    facts: tuple[TracedFact, ...]
    arrays: Mapping[str, AnyArray]

    @classmethod
    def open(cls, folder: Path, *, verify: bool = True) -> Self:
        """Open the trace in a folder.

        Args:
            verify: Whether the arrays' checksums are compared, which reads all of them. Header, facts and sizes are
                checked in any case.

        Raises:
            TraceError: No trace, of another version, incomplete or damaged.
        """
        header = _header(folder)
        try:
            source = _record(Source, header["source"])
            files = {name: _record(ArrayFile, entry) for name, entry in header["arrays"].items()}
            facts_crc = int(header["facts_crc32c"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise TraceError(
                f"expected the fields of version {VERSION}, got {error!r} in {folder.name}/{HEADER}"
            ) from error
        arrays = {name: _mapped(folder, file, verify=verify) for name, file in files.items()}
        trace = cls(folder, source, _facts(folder, facts_crc), arrays)
        trace._check()
        return trace

    @property
    def tokens(self) -> int:
        """Rows before the first question: text and unrelated text."""
        return self.source.text_tokens + self.source.unrelated_tokens

    def embeddings(self, layer: int, first: int, end: int) -> Float32Array:
        """Rows `first` to `end`, exclusive, of one layer's embeddings, [end - first, dims].

        Raises:
            TraceError: The trace has no such layer.
        """
        if layer not in self.source.layers:
            raise TraceError(f"expected one of layers {list(self.source.layers)} of {self.folder.name}, got {layer}")
        codes = self.arrays[codes_name(layer)][first:end].astype(np.float32)
        scaled: Float32Array = codes * self.arrays[scales_name(layer)][first:end].astype(np.float32)[:, None]
        return scaled

    def signals(self, first: int, end: int) -> dict[str, Float32Array]:
        """Every signal that the trace has, by the name that policies know, of rows `first` to `end`, exclusive."""
        return {
            name: np.array(self.arrays[name][first:end], dtype=np.float32)
            for name in (SURPRISAL, MASS)
            if name in self.arrays
        }

    def _check(self) -> None:
        embeddings = [f(layer) for layer in self.source.layers for f in (codes_name, scales_name)]
        names = [SURPRISAL, *([MASS] if self.source.mass_layer is not None else []), IDS, *embeddings]
        rows = self.tokens + sum(fact.question_tokens for fact in self.facts)
        for name in names:
            if name not in self.arrays:
                raise TraceError(f"expected array {name!r}, got {sorted(self.arrays)} in {self.folder.name}/{HEADER}")
            if len(self.arrays[name]) != rows:
                got = len(self.arrays[name])
                raise TraceError(f"expected {rows} rows of {name!r}, got {got} in {self.folder.name}/{HEADER}")


def codes_name(layer: int) -> str:
    """Name of the array of a layer's codes."""
    return f"codes-{layer}"


def scales_name(layer: int) -> str:
    """Name of the array of a layer's scales."""
    return f"scales-{layer}"


def quantised(rows: Float32Array) -> tuple[npt.NDArray[np.int8], Float32Array]:
    """Codes and scales of rows [n, dims]: each row's largest magnitude becomes 127; a zero row has scale 0."""
    scales = np.abs(rows).max(axis=1, initial=0.0) / np.float32(127)
    codes = np.rint(rows / np.where(scales > 0, scales, 1.0)[:, None]).astype(np.int8)
    return codes, scales.astype(np.float32)


def header_text(source: Source, arrays: Mapping[str, ArrayFile], facts: bytes) -> str:
    """The header of a trace, checksums included."""
    body = {
        "format": FORMAT,
        "version": VERSION,
        "source": dataclasses.asdict(source),
        "arrays": {name: dataclasses.asdict(file) for name, file in sorted(arrays.items())},
        "facts_crc32c": google_crc32c.value(facts),
    }
    return json.dumps({**body, "header_crc32c": _crc_of_header(body)}, indent=1, ensure_ascii=False) + "\n"


def facts_text(facts: Sequence[TracedFact]) -> str:
    """The facts as they are stored."""
    return json.dumps([dataclasses.asdict(fact) for fact in facts], indent=1, ensure_ascii=False) + "\n"


def _header(folder: Path) -> dict[str, Any]:
    where = f"{folder.name}/{HEADER}"
    try:
        header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
    except OSError as error:
        raise TraceError(f"expected a trace with its header, got {error.strerror} for {where}") from error
    except ValueError as error:
        raise TraceError(f"expected a JSON header, got {error} in {where}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        got = header.get("format") if isinstance(header, dict) else type(header).__name__
        raise TraceError(f"expected format {FORMAT!r}, got {got!r} in {where}")
    if header.get("version") != VERSION:
        raise TraceError(f"expected version {VERSION}, got {header.get('version')!r} in {where}")
    stated = header.pop("header_crc32c", None)
    if stated != (actual := _crc_of_header(header)):
        raise TraceError(f"expected CRC32C {stated!r} as stated, got {actual} of {where}")
    return header


def _crc_of_header(body: Mapping[str, Any]) -> int:
    return int(google_crc32c.value(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()))


def _record(kind: type[Record], values: Any) -> Record:
    """A dataclass from its JSON. Raises TypeError for fields that are missing or too many."""
    if not isinstance(values, dict):
        raise TypeError(f"expected an object of {kind.__name__}, got {type(values).__name__}")
    return kind(**{name: _frozen(value) for name, value in values.items()})


def _frozen(value: Any) -> Any:
    return tuple(_frozen(each) for each in value) if isinstance(value, list) else value


def _facts(folder: Path, stated: int) -> tuple[TracedFact, ...]:
    where = f"{folder.name}/{FACTS}"
    try:
        data = (folder / FACTS).read_bytes()
    except OSError as error:
        raise TraceError(f"expected the marked facts, got {error.strerror} for {where}") from error
    if (actual := google_crc32c.value(data)) != stated:
        raise TraceError(f"expected CRC32C {stated} as the header states, got {actual} of {where}")
    try:
        return tuple(_record(TracedFact, entry) for entry in json.loads(data))
    except (TypeError, ValueError) as error:
        raise TraceError(f"expected a list of facts, got {error} in {where}") from error


def _mapped(folder: Path, file: ArrayFile, *, verify: bool) -> AnyArray:
    path, where = folder / file.file, f"{folder.name}/{file.file}"
    if Path(file.file).name != file.file:
        raise TraceError(f"expected a file of the trace's own folder, got {file.file!r} in {folder.name}/{HEADER}")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise TraceError(f"expected {file.size} bytes, got {error.strerror} for {where}") from error
    if size != file.size:
        raise TraceError(f"expected {file.size} bytes, got {size} in {where}")
    if not size:
        return np.empty(file.shape, dtype=file.dtype)
    array: AnyArray = np.memmap(path, dtype=file.dtype, mode="r", shape=file.shape)
    if verify:
        flat, crc = array.reshape(-1).view(np.uint8), 0
        for first in range(0, size, _PIECE_BYTES):
            crc = google_crc32c.extend(crc, flat[first : first + _PIECE_BYTES].tobytes())
        if crc != file.crc32c:
            raise TraceError(f"expected CRC32C {file.crc32c} as the header states, got {crc} of {where}")
    return array
