"""Arrays to wire tensors and back: the same values, or a ValueError that says why not."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from protos.codec import as_float32, decode, encode
from protos.memsvc.v1 import types_pb2 as wire

ELEMENTS = {
    "<f4": wire.ELEMENT_TYPE_FLOAT32,
    "<f2": wire.ELEMENT_TYPE_FLOAT16,
    "<u2": wire.ELEMENT_TYPE_BFLOAT16,
    "<u4": wire.ELEMENT_TYPE_UINT32,
}
shapes = hnp.array_shapes(min_dims=0, max_dims=8, min_side=0, max_side=3)


@settings(deadline=None)
@given(data=st.data(), dtype=st.sampled_from(list(ELEMENTS)), shape=shapes)
def test_arrays_come_back_bit_for_bit(data: st.DataObject, dtype: str, shape: tuple[int, ...]) -> None:
    """Proves that shape, type and every bit survive the wire, NaN payloads and empty or scalar shapes included."""
    size_bytes = np.dtype(dtype).itemsize * int(np.prod(shape))
    raw = data.draw(st.binary(min_size=size_bytes, max_size=size_bytes))
    array = np.frombuffer(raw, dtype).reshape(shape)
    tensor = wire.Tensor.FromString(encode(array).SerializeToString())
    assert tensor.dtype == ELEMENTS[dtype]
    back = decode(tensor)
    assert (back.shape, back.dtype, back.tobytes()) == (shape, np.dtype(dtype), raw)
    assert not back.flags.writeable


@pytest.mark.parametrize("order", ["F", "strided", "reversed"])
def test_any_layout_in_memory_travels_row_by_row(order: str) -> None:
    """Proves that what an array holds, not how it lies in memory, is what is sent."""
    rows = np.arange(24, dtype=np.float32).reshape(4, 6)
    array = {"F": np.asfortranarray(rows), "strided": rows[::2, 1::3], "reversed": rows[::-1, ::-1]}[order]
    assert np.array_equal(decode(encode(array)), array)


@pytest.mark.parametrize("dtype", ["f8", "i4", "u1", "?", ">f4", ">u2"])
def test_other_types_are_refused(dtype: str) -> None:
    """Proves that an array of a type without a wire form, big-endian ones too, is an error that names it."""
    with pytest.raises(ValueError, match=f"got {np.dtype(dtype)}".replace("?", "bool")):
        encode(np.zeros(3, dtype=dtype))


@settings(deadline=None)
@given(raw=hnp.arrays(np.uint16, hnp.array_shapes(min_dims=0, max_dims=3), elements=st.integers(0, 2**16 - 1)))
def test_bfloat16_widens_to_the_upper_half_of_a_float32(raw: npt.NDArray[np.uint16]) -> None:
    """Proves that each bfloat16 becomes the float32 of the same bits, in an array of the same shape."""
    wide = as_float32(encode(raw))
    assert isinstance(wide, np.ndarray)
    assert (wide.shape, wide.dtype) == (raw.shape, np.float32)
    assert np.array_equal(wide.view(np.uint32), raw.astype(np.uint32) * 2**16)


def test_every_float16_widens_exactly() -> None:
    """Proves that all float16 values but the NaNs are the same numbers as float32, and that NaNs stay NaNs."""
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    wide = as_float32(encode(halves))
    numbers = ~np.isnan(halves)
    assert wide[numbers].tolist() == halves[numbers].tolist()
    assert np.isnan(wide[~numbers]).all()


def test_float32_stays_as_it_is_and_can_be_changed() -> None:
    """Proves that float32 values come back unchanged, in memory of their own."""
    array = np.array([1.5, -0.0, np.inf, 1e-45], dtype=np.float32)
    tensor = encode(array)
    wide = as_float32(tensor)
    assert wide.tobytes() == array.tobytes()
    wide[:] = 0
    assert decode(tensor).tobytes() == array.tobytes()


def test_integers_are_no_floats() -> None:
    """Proves that asking floats of an integer tensor is an error."""
    with pytest.raises(ValueError, match="expected a float tensor, got uint32"):
        as_float32(encode(np.zeros(3, dtype=np.uint32)))


@pytest.mark.parametrize("element", [wire.ELEMENT_TYPE_UNSPECIFIED, 99])
def test_an_unknown_element_type_is_refused(element: int) -> None:
    """Proves that a tensor of no type, or of a later protocol's, is an error."""
    tensor = wire.Tensor(shape=[1], data=b"1234")
    tensor.dtype = element  # type: ignore[assignment]
    with pytest.raises(ValueError, match=f"expected a tensor of a known element type, got {element}"):
        decode(tensor)


@pytest.mark.parametrize(
    ("shape", "size_bytes", "expected"),
    [([2, 3], 23, "24 bytes"), ([2, 3], 25, "24 bytes"), ([], 0, "4 bytes"), ([0], 4, "0 bytes")],
)
def test_bytes_that_do_not_fill_the_shape_are_refused(shape: list[int], size_bytes: int, expected: str) -> None:
    """Proves that one byte too few or too many is an error that names both counts."""
    tensor = wire.Tensor(dtype=wire.ELEMENT_TYPE_FLOAT32, shape=shape, data=bytes(size_bytes))
    with pytest.raises(ValueError, match=f"expected {expected} for shape .*, got {size_bytes}"):
        decode(tensor)


@pytest.mark.parametrize(
    ("shape", "size_bytes", "message"),
    [
        ([1] * 9, 4, "expected at most 8 dimensions, got 9"),
        ([1] * 100_000, 4, "expected at most 8 dimensions, got 100000"),
        ([2**32 - 1] * 8, 4, "got 4"),
        ([2**32 - 1] * 7 + [0], 0, "expected a shape that an array can have"),
        ([0] + [2**32 - 1] * 7, 0, "expected a shape that an array can have"),
    ],
)
def test_shapes_that_no_array_has_are_refused(shape: list[int], size_bytes: int, message: str) -> None:
    """Proves that hostile shapes are our own error, short and on one line, and cost no memory."""
    tensor = wire.Tensor(dtype=wire.ELEMENT_TYPE_FLOAT32, shape=shape, data=bytes(size_bytes))
    with pytest.raises(ValueError, match=message) as raised:
        decode(tensor)
    assert len(str(raised.value)) < 300
