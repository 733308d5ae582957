"""Reads a PyTorch `.pth` of weights into numpy without PyTorch. Whatever else its pickle asks for is refused.

    old format: pickle magic, version, system · pickle of the dictionary · pickle of storage keys · count, numbers, ...

Source: `torch/serialization.py`, `_legacy_load`.
"""

import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_TYPES = {"FloatStorage": "<f4", "LongStorage": "<i8"}


class _Unpickler(pickle.Unpickler):
    """Knows dictionaries of tensors and nothing else."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        raise pickle.UnpicklingError(f"refused: {module}.{name}")

    def persistent_load(self, pid: Any) -> np.ndarray:
        _, dtype, key, _, count, *_ = pid
        return self.storages.setdefault(key, np.empty(count, dtype))


def _tensor(storage: np.ndarray, offset: int, shape: Any, strides: Any, *_: Any) -> Callable[[], np.ndarray]:
    """A view of its storage, to be made when that is filled."""
    return lambda: np.lib.stride_tricks.as_strided(
        storage[offset:], shape, [stride * storage.itemsize for stride in strides]
    ).copy()


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """The weights, by name."""
    with path.open("rb") as file:
        for _ in range(3):
            _Unpickler(file).load()
        weights = _Unpickler(file)
        views = weights.load()
        for key in _Unpickler(file).load():
            storage = weights.storages[key]
            (count,) = struct.unpack("<q", file.read(8))
            if count != len(storage):
                raise ValueError(f"storage {key} should have {len(storage)} numbers, {count} are there")
            storage[:] = np.frombuffer(file.read(storage.nbytes), storage.dtype)
    return {name: view() for name, view in views.items()}
