"""numpy arrays to and from wire tensors.

Owns the mapping of element types. numpy has no bfloat16: such a tensor travels as its raw 16 bits, is a `uint16` array
on the sending side, and `as_float32` widens it. Every decoding error is a ValueError that says what was expected and
what came.
"""

import math

import numpy as np
import numpy.typing as npt

from protos.memsvc.v1 import types_pb2 as wire

# Dimensions of a tensor at most; more is noise, and would fill an error's message.
_DIMENSIONS_MAX = 8

Array = npt.NDArray[np.generic]
Float32Array = npt.NDArray[np.float32]

_NUMPY_BY_ELEMENT: dict[int, np.dtype[np.generic]] = {
    wire.ELEMENT_TYPE_FLOAT32: np.dtype("<f4"),
    wire.ELEMENT_TYPE_FLOAT16: np.dtype("<f2"),
    wire.ELEMENT_TYPE_BFLOAT16: np.dtype("<u2"),
    wire.ELEMENT_TYPE_UINT32: np.dtype("<u4"),
}
_ELEMENT_BY_NUMPY: dict[np.dtype[np.generic], "wire.ElementType.ValueType"] = {
    np.dtype("<f4"): wire.ELEMENT_TYPE_FLOAT32,
    np.dtype("<f2"): wire.ELEMENT_TYPE_FLOAT16,
    np.dtype("<u2"): wire.ELEMENT_TYPE_BFLOAT16,
    np.dtype("<u4"): wire.ELEMENT_TYPE_UINT32,
}


def encode(array: Array) -> wire.Tensor:
    """Wire tensor of a float32, float16, uint32 or (raw bfloat16) uint16 array of any shape."""
    element = _ELEMENT_BY_NUMPY.get(array.dtype)
    if element is None:
        raise ValueError(f"expected an array of float32, float16, uint16 (bfloat16 bits) or uint32, got {array.dtype}")
    return wire.Tensor(dtype=element, shape=array.shape, data=np.ascontiguousarray(array).tobytes())


def decode(tensor: wire.Tensor) -> Array:
    """Read-only array over a wire tensor's bytes; bfloat16 comes as its raw uint16 bits."""
    dtype = _NUMPY_BY_ELEMENT.get(tensor.dtype)
    if dtype is None:
        raise ValueError(f"expected a tensor of a known element type, got {tensor.dtype}")
    if len(tensor.shape) > _DIMENSIONS_MAX:
        raise ValueError(f"expected at most {_DIMENSIONS_MAX} dimensions, got {len(tensor.shape)}")
    expected = math.prod(tensor.shape) * dtype.itemsize
    if len(tensor.data) != expected:
        raise ValueError(f"expected {expected} bytes for shape {list(tensor.shape)} of {dtype}, got {len(tensor.data)}")
    try:
        return np.frombuffer(tensor.data, dtype=dtype).reshape(tuple(tensor.shape))
    except ValueError as error:
        # Empty, but so large in the other dimensions that numpy does not count to their product.
        raise ValueError(f"expected a shape that an array can have, got {list(tensor.shape)}") from error


def as_float32(tensor: wire.Tensor) -> Float32Array:
    """Values of a float tensor as float32, exactly. Raises ValueError for an integer tensor."""
    array = decode(tensor)
    if tensor.dtype == wire.ELEMENT_TYPE_BFLOAT16:
        # A shift makes a scalar out of an array without dimensions.
        return np.asarray(array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if tensor.dtype == wire.ELEMENT_TYPE_UINT32:
        raise ValueError("expected a float tensor, got uint32")
    return array.astype(np.float32)
