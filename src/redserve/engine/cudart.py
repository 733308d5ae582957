"""What ONNX Runtime's Python API lacks of CUDA: page-locked memory, and copies that leave the interpreter's lock alone.

batch buffer (page-locked) ─ cudaMemcpy, by DMA ─> device ─ run ─> device ─ cudaMemcpy ─> the answer

It is the library that ONNX Runtime itself has loaded; `ctypes` gives the lock back while a function of it runs.
"""

import ctypes
import math
import mmap
import weakref
from typing import Any

import numpy as np

from redserve.engine.tensors import Array
from redserve.errors import ModelError

_LIBRARIES = ("libcudart.so.13", "libcudart.so.12")
_TO_DEVICE, _TO_HOST, _PORTABLE = 1, 2, 1  # of cudaMemcpyKind, and cudaHostRegisterPortable


def find_cudart(device_id: int) -> "Cudart | None":
    """The CUDA runtime, for one device; `None` where none is loaded or found."""
    for name in _LIBRARIES:
        try:
            return Cudart(ctypes.CDLL(name), device_id)
        except OSError:
            continue
    return None


class Cudart:
    """Memory and copies of one device, from any thread; fits `Copies`."""

    def __init__(self, library: Any, device_id: int) -> None:
        self._library = library
        self._device_id = device_id

    def empty(self, shape: tuple[int, ...], dtype: "np.dtype[Any]") -> Array:
        """An array in page-locked memory, which the device reads by itself; in ordinary memory where that is refused.

        Pages of its own, since a page must not be locked twice.
        """
        size = math.prod(shape)
        if dtype.hasobject or not size:
            return np.empty(shape, dtype)
        pages = mmap.mmap(-1, size * dtype.itemsize)
        array: Array = np.ndarray(shape, dtype, pages)
        address = array.ctypes.data
        library = self._library
        if library.cudaHostRegister(_pointer(address), ctypes.c_size_t(len(pages)), ctypes.c_uint(_PORTABLE)):
            library.cudaGetLastError()  # else ONNX Runtime takes it for its own
        else:
            weakref.finalize(pages, library.cudaHostUnregister, _pointer(address)).atexit = False
        return array

    def fill(self, value: Any, array: Array) -> None:
        """See `Copies`."""
        array = np.asarray(array, order="C")
        self._copy(value.data_ptr(), array.ctypes.data, array.nbytes, _TO_DEVICE)

    def read(self, value: Any, dtype: "np.dtype[Any]") -> Array:
        """See `Copies`."""
        array = np.empty(value.shape(), dtype)
        self._copy(array.ctypes.data, value.data_ptr(), array.nbytes, _TO_HOST)
        return array

    def _copy(self, to: int, source: int, size_bytes: int, kind: int) -> None:
        """ONNX Runtime's streams do not wait for the default one, so this waits for it: from ordinary memory the last
        part may be on its way when `cudaMemcpy` returns.
        """
        library = self._library
        error = (
            library.cudaSetDevice(ctypes.c_int(self._device_id))
            or library.cudaMemcpy(_pointer(to), _pointer(source), ctypes.c_size_t(size_bytes), ctypes.c_int(kind))
            or library.cudaStreamSynchronize(_pointer(0))
        )
        if error:
            library.cudaGetLastError()
            raise ModelError(f"CUDA error {error} in a copy of {size_bytes} bytes")


def _pointer(address: int) -> ctypes.c_void_p:
    return ctypes.c_void_p(address)
