"""Writing a trace, a few rows at a time.

    writer = TraceWriter(folder, layers=(6,), dims=576)
    writer.append(Rows(ids, surprisal, {6: embeddings}))
    writer.finish(source, facts)

Durability: none promised before `finish` returns; until then the folder has no header, so it is no trace.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import google_crc32c
import numpy as np
import numpy.typing as npt

from benchmarks.traces.format import (
    FACTS,
    HEADER,
    IDS,
    MASS,
    SURPRISAL,
    AnyArray,
    ArrayFile,
    Float32Array,
    Source,
    TracedFact,
    TraceError,
    codes_name,
    facts_text,
    header_text,
    quantised,
    scales_name,
)

_SUFFIX = {"<i1": "i8", "|i1": "i8", "<f4": "f32", "<u4": "u32"}


@dataclass(frozen=True)
class Rows:
    """Consecutive tokens: ids uint32 [n], surprisal float32 [n], embeddings by layer float32 [n, dims], and attention
    mass float32 [n], or None in a trace without.
    """

    ids: npt.NDArray[np.uint32]
    surprisal: Float32Array
    embeddings: Mapping[int, Float32Array]
    mass: Float32Array | None = None


class TraceWriter:
    """Appends rows to the arrays of one new trace; a context manager that closes its files.

    Args:
        folder: Made if it is not there.
        mass: Whether rows have attention mass.

    Raises:
        TraceError: The folder holds a trace already.
    """

    def __init__(self, folder: Path, layers: Sequence[int], dims: int, *, mass: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / HEADER).exists():
            raise TraceError(f"expected a folder without a trace, got {folder.name} with {HEADER}")
        self._folder, self._layers, self._dims = folder, tuple(layers), dims
        kinds: dict[str, str] = {IDS: "<u4", SURPRISAL: "<f4"} | ({MASS: "<f4"} if mass else {})
        for layer in layers:
            kinds |= {codes_name(layer): "|i1", scales_name(layer): "<f4"}
        self._kinds = kinds
        self._names = {name: f"{name}.{_SUFFIX[kind]}" for name, kind in kinds.items()}
        self._stack = ExitStack()
        self._files = {
            name: self._stack.enter_context((folder / file).open("wb")) for name, file in self._names.items()
        }
        self._crc = dict.fromkeys(kinds, 0)
        self.rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def append(self, rows: Rows) -> None:
        """Add rows.

        Raises:
            ValueError: Arrays of different lengths, of other dimensions, or with values that are not finite; mass
                where the trace has none, or none where it has.
        """
        count = len(rows.ids)
        if (rows.mass is not None) != (MASS in self._kinds):
            got = "none" if rows.mass is None else "some"
            raise ValueError(f"expected {'some' if MASS in self._kinds else 'no'} {MASS} of rows, got {got}")
        arrays: dict[str, AnyArray] = {IDS: rows.ids, SURPRISAL: _checked(SURPRISAL, rows.surprisal, (count,))}
        if rows.mass is not None:
            arrays[MASS] = _checked(MASS, rows.mass, (count,))
        for layer in self._layers:
            embeddings = _checked(f"embeddings of layer {layer}", rows.embeddings[layer], (count, self._dims))
            arrays[codes_name(layer)], arrays[scales_name(layer)] = quantised(embeddings)
        # Nothing is written of rows that do not fit.
        for name, values in arrays.items():
            self._put(name, values)
        self.rows += count

    def finish(self, source: Source, facts: Sequence[TracedFact]) -> None:
        """Close the arrays and write facts and header: from here on the folder is a trace."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        self._stack.close()
        arrays = {
            name: ArrayFile(self._names[name], kind, self._shape(name), self._crc[name])
            for name, kind in self._kinds.items()
        }
        listed = facts_text(facts).encode()
        (self._folder / FACTS).write_bytes(listed)
        staged = self._folder / f"{HEADER}.tmp"
        staged.write_text(header_text(source, arrays, listed), encoding="utf-8")
        staged.rename(self._folder / HEADER)

    def _shape(self, name: str) -> tuple[int, ...]:
        return (self.rows, self._dims) if name.startswith("codes-") else (self.rows,)

    def _put(self, name: str, values: AnyArray) -> None:
        data = np.ascontiguousarray(values, dtype=self._kinds[name]).tobytes()
        self._files[name].write(data)
        self._crc[name] = google_crc32c.extend(self._crc[name], data)


def _checked(name: str, values: Float32Array, shape: tuple[int, ...]) -> Float32Array:
    if values.shape != shape:
        raise ValueError(f"expected {name} of shape {list(shape)}, got {list(values.shape)}")
    if not np.isfinite(values).all():
        raise ValueError(f"expected finite {name}, got {np.count_nonzero(~np.isfinite(values))} values that are not")
    return values
