"""The format of traces: what is written comes back, and what is damaged is refused in one line."""

import dataclasses
import json
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

from benchmarks.traces.format import (
    FACTS,
    HEADER,
    IDS,
    MASS,
    SURPRISAL,
    Source,
    Trace,
    TracedFact,
    TraceError,
    quantised,
)
from benchmarks.traces.writer import Rows, TraceWriter

DIMS, TEXT, UNRELATED, QUESTION = 8, 40, 5, 3
SOURCE = Source("m", "t", (2, 4), DIMS, TEXT, UNRELATED, 64, 512, 256, 0, (7,), "made up", "none")
FACT = TracedFact("plain", ("The cat sat.",), "The cat", "sat", ((0,),), TEXT + UNRELATED, QUESTION)


def _rows(count: int, seed: int) -> Rows:
    random = np.random.default_rng(seed)
    embeddings = {layer: random.normal(size=(count, DIMS)).astype(np.float32) for layer in SOURCE.layers}
    ids = random.integers(0, 50_000, count).astype(np.uint32)
    return Rows(ids, random.gamma(2.0, 1.5, count).astype(np.float32), embeddings)


def _written(folder: Path, mass_layer: int | None = None) -> list[Rows]:
    parts = [_rows(TEXT, 1), _rows(UNRELATED, 2), _rows(QUESTION, 3)]
    if mass_layer is not None:
        parts = [dataclasses.replace(rows, mass=rows.surprisal[::-1] + np.float32(1)) for rows in parts]
    with TraceWriter(folder, SOURCE.layers, DIMS, mass=mass_layer is not None) as writer:
        for rows in parts:
            writer.append(rows)
        writer.finish(dataclasses.replace(SOURCE, mass_layer=mass_layer), [FACT])
    return parts


def _restated(folder: Path, **changes: object) -> None:
    """Change fields of a header and state its checksum again."""
    header = json.loads((folder / HEADER).read_text())
    del header["header_crc32c"]
    header |= changes
    body = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    (folder / HEADER).write_text(json.dumps({**header, "header_crc32c": google_crc32c.value(body)}))


def test_a_trace_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """Proves that source, facts, ids and signals are unchanged, and embeddings are off by half a step of their row."""
    parts = _written(tmp_path)
    trace = Trace.open(tmp_path)
    assert (trace.source, trace.facts, trace.tokens) == (SOURCE, (FACT,), TEXT + UNRELATED)
    assert np.array_equal(trace.arrays[IDS], np.concatenate([rows.ids for rows in parts]))
    assert np.array_equal(trace.arrays[SURPRISAL], np.concatenate([rows.surprisal for rows in parts]))
    for layer in SOURCE.layers:
        wanted = np.concatenate([rows.embeddings[layer] for rows in parts])
        step = np.abs(wanted).max(axis=1, keepdims=True) / 127
        # Half a step, and the rounding of the scale and of the product: 127 units in the last place of the step.
        bound = step * (0.5 + 127 * 2 * np.finfo(np.float32).eps)
        assert (np.abs(trace.embeddings(layer, 0, len(wanted)) - wanted) <= bound).all()


def test_attention_mass_comes_back_where_it_was_saved(tmp_path: Path) -> None:
    """Proves that a trace gives the signals that it has, under the names that policies ask for, and no others."""
    parts = _written(tmp_path / "with", mass_layer=4)
    own, first, end = Trace.open(tmp_path / "with"), TEXT - 3, TEXT + 2
    assert own.source.mass_layer == 4
    for name, written in ((SURPRISAL, [rows.surprisal for rows in parts]), (MASS, [rows.mass for rows in parts])):
        assert np.array_equal(own.signals(first, end)[name], np.concatenate(written)[first:end])
    _written(tmp_path / "without")
    assert list(Trace.open(tmp_path / "without").signals(first, end)) == [SURPRISAL]


def test_a_header_from_before_there_was_mass_is_read(tmp_path: Path) -> None:
    """Proves that traces without the field open as traces without attention mass."""
    _written(tmp_path)
    source = json.loads((tmp_path / HEADER).read_text())["source"]
    del source["mass_layer"]
    _restated(tmp_path, source=source)
    assert Trace.open(tmp_path).source == SOURCE


def test_a_slice_of_rows_is_those_rows(tmp_path: Path) -> None:
    """Proves that a question's embeddings can be read alone, and that arrays are mapped read-only."""
    _written(tmp_path)
    trace = Trace.open(tmp_path)
    first, end = FACT.question_first, FACT.question_first + FACT.question_tokens
    assert np.array_equal(trace.embeddings(4, first, end), trace.embeddings(4, 0, end)[first:])
    assert isinstance(trace.arrays[IDS], np.memmap)
    assert not trace.arrays[IDS].flags.writeable


def test_zero_rows_are_zero_again() -> None:
    """Proves that a row without any magnitude has scale 0 and no division by it."""
    codes, scales = quantised(np.zeros((2, 3), dtype=np.float32))
    assert not codes.any()
    assert not scales.any()


@pytest.mark.parametrize("name", ["codes-2.i8", "scales-4.f32", "surprisal.f32", "ids.u32", FACTS, HEADER])
def test_a_flipped_bit_is_found_in_every_file(tmp_path: Path, name: str) -> None:
    """Proves that damage anywhere is refused with one line that names the file."""
    _written(tmp_path)
    data = bytearray((tmp_path / name).read_bytes())
    # In the header, a digit of the dimensions: what stands there stays JSON.
    place = data.index(b'"dims": 8') + 8 if name == HEADER else len(data) // 2
    data[place] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(TraceError) as caught:
        Trace.open(tmp_path)
    assert name in str(caught.value)
    assert "CRC32C" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_of_an_array_passes_when_not_asked(tmp_path: Path) -> None:
    """Proves that `verify=False` skips the arrays' checksums and nothing else: sizes still count."""
    _written(tmp_path)
    path = tmp_path / "codes-2.i8"
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    Trace.open(tmp_path, verify=False)
    path.write_bytes(data[:-1])
    with pytest.raises(TraceError, match=r"expected 384 bytes, got 383 in .*codes-2\.i8"):
        Trace.open(tmp_path, verify=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "zip"}, "expected format 'bookmark-trace', got 'zip'"),
        ({"version": 2}, "expected version 1, got 2"),
        ({"source": {}}, "expected the fields of version 1"),
        ({"source": dataclasses.asdict(SOURCE) | {"mass_layer": 4}}, "expected array 'attention_mass', got"),
        ({"arrays": []}, "expected the fields of version 1"),
        ({"arrays": {}}, "expected array 'surprisal', got []"),
        ({"source": dataclasses.asdict(SOURCE) | {"text_tokens": 41}}, "expected 49 rows of 'surprisal', got 48"),
    ],
)
def test_a_header_of_something_else_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    """Proves that wrong formats, versions, fields and lengths are named in one line, though all checksums hold."""
    _written(tmp_path)
    _restated(tmp_path, **changes)
    with pytest.raises(TraceError) as caught:
        Trace.open(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_array_outside_the_folder_is_refused(tmp_path: Path) -> None:
    """Proves that a header cannot make a reader open other files."""
    _written(tmp_path)
    arrays = json.loads((tmp_path / HEADER).read_text())["arrays"]
    arrays["ids"]["file"] = "../ids.u32"
    _restated(tmp_path, arrays=arrays)
    with pytest.raises(TraceError, match="own folder"):
        Trace.open(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_header_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    """Proves that an empty, cut or foreign header is one line."""
    (tmp_path / HEADER).write_text(text)
    with pytest.raises(TraceError) as caught:
        Trace.open(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_unfinished_trace_is_none(tmp_path: Path) -> None:
    """Proves that a writer that stopped half-way leaves no header, hence nothing to be opened."""
    with TraceWriter(tmp_path, SOURCE.layers, DIMS) as writer:
        writer.append(_rows(4, 1))
    with pytest.raises(TraceError, match="No such file"):
        Trace.open(tmp_path)


def test_a_trace_is_never_written_over(tmp_path: Path) -> None:
    """Proves that a second writer is refused where a trace is, and that the trace stays whole."""
    _written(tmp_path)
    with pytest.raises(TraceError, match="expected a folder without a trace"):
        TraceWriter(tmp_path, SOURCE.layers, DIMS)
    Trace.open(tmp_path)


def test_rows_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """Proves that lengths, dimensions and values that are not finite are found before they are written."""
    good = _rows(4, 1)
    short = dataclasses.replace(good, surprisal=good.surprisal[:3])
    narrow = dataclasses.replace(good, embeddings={2: good.embeddings[2][:, :7], 4: good.embeddings[4]})
    infinite = dataclasses.replace(good, surprisal=np.full(4, np.inf, dtype=np.float32))
    massive = dataclasses.replace(good, mass=good.surprisal)
    with TraceWriter(tmp_path, SOURCE.layers, DIMS) as writer:
        for rows, message in ((short, r"\[4\], got \[3\]"), (narrow, r"\[4, 8\], got \[4, 7\]"), (infinite, "finite")):
            with pytest.raises(ValueError, match=message):
                writer.append(rows)
        with pytest.raises(ValueError, match="expected no attention_mass of rows, got some"):
            writer.append(massive)
    with TraceWriter(tmp_path / "mass", SOURCE.layers, DIMS, mass=True) as writer:
        with pytest.raises(ValueError, match="expected some attention_mass of rows, got none"):
            writer.append(good)
        with pytest.raises(ValueError, match="finite"):
            writer.append(dataclasses.replace(massive, mass=np.full(4, np.nan, dtype=np.float32)))


def test_a_layer_that_was_not_saved_is_named(tmp_path: Path) -> None:
    """Proves that asking for another layer says which there are."""
    _written(tmp_path)
    with pytest.raises(TraceError, match=r"expected one of layers \[2, 4\] of .*, got 6"):
        Trace.open(tmp_path).embeddings(6, 0, 1)
