"""What the models of a server may take of a GPU together: each has a part, from its loading until it is freed.

    limit ─ what some models ask for ─ a part to swap in ─ the rest in even parts ─> gpu_mem_limit of each session

The parts are counted at start. A limit is of ONNX Runtime's arenas: the CUDA context and the workspaces of cuDNN and
cuBLAS come on top.
"""

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from redserve.errors import ModelLoadError

SWAP_WAIT_S = 10.0
"""For a version that is on its way out and has requests to answer yet, before a new one is refused its part."""


@dataclass(frozen=True)
class Claim:
    """What a model asks for.

    Attributes:
        device_id: Of which GPU.
        mib: How much; `None` is an even part of what the others leave.
    """

    device_id: int
    mib: int | None = None


class GpuBudget:
    """Keeps count of the MiB that loaded models hold; called from any thread.

    Args:
        limit_mib: Of each GPU.
        claims: Of the models that are known at start, one a version.
        swaps: Whether one more part is kept, for a version that loads beside the one it replaces: as much as the
            largest model has.

    Raises:
        ValueError: The limit is less than what they ask for.
    """

    def __init__(self, limit_mib: int, claims: Iterable[Claim], *, swaps: bool = False) -> None:
        self._limit_mib = limit_mib
        self._held_mib: Counter[int] = Counter()
        self._changed = threading.Condition()
        self._wait_s = SWAP_WAIT_S if swaps else 0.0
        by_device: dict[int, list[int | None]] = {}
        for claim in claims:
            by_device.setdefault(claim.device_id, []).append(claim.mib)
        self._even_mib = {
            device_id: even_part_mib(limit_mib, asked, swaps=swaps) for device_id, asked in by_device.items()
        }

    def take(self, claim: Claim, *, instances: int = 1) -> "Lease":
        """Take the part of one of a model's instances; where models are swapped, blocks until there is one.

        Raises:
            ModelLoadError: It is not there.
        """
        device_id = claim.device_id
        asked_mib = claim.mib or self._even_mib.get(device_id, self._limit_mib)
        mib = max(1, asked_mib // instances)
        with self._changed:
            if not self._changed.wait_for(lambda: mib <= self._left_mib(device_id), self._wait_s):
                raise ModelLoadError(
                    f"gpu_budget_mib: {self._left_mib(device_id)} of the {self._limit_mib} MiB of GPU {device_id} are "
                    f"left, and this takes {mib}; gpu_memory_mib of the models says how many each may take"
                )
            self._held_mib[device_id] += mib
        return Lease(self, device_id, mib)

    def give_back(self, lease: "Lease") -> None:
        """Undo a `take`; again is no mistake."""
        with self._changed:
            self._held_mib[lease.device_id] -= lease.mib
            lease.mib = 0
            self._changed.notify_all()

    def _left_mib(self, device_id: int) -> int:
        return self._limit_mib - self._held_mib[device_id]


@dataclass(eq=False)
class Lease:
    """A part that is taken.

    Attributes:
        budget: Of what.
        device_id: Of which GPU.
        mib: How much; nothing once it is given back.
    """

    budget: GpuBudget
    device_id: int
    mib: int

    def give_back(self) -> None:
        """See `GpuBudget`."""
        self.budget.give_back(self)


def even_part_mib(limit_mib: int, asked_mib: Iterable[int | None], *, swaps: bool) -> int:
    """What each model that asks for nothing gets.

    Raises:
        ValueError: There is not that much.
    """
    asked = list(asked_mib)
    fixed = [mib for mib in asked if mib is not None]
    even = asked.count(None)
    largest = max(fixed, default=0) if swaps else 0
    left_mib = limit_mib - sum(fixed) - largest
    part_mib = left_mib // even if even else 0
    if swaps and even and part_mib > largest:  # then it is one of these that needs the most room beside itself
        part_mib = (limit_mib - sum(fixed)) // (even + 1)
    if left_mib < 0 or (even and part_mib < 1):
        swap = f", and {largest} for the largest of them to be swapped" if largest else ""
        others = f"; {even} more share the rest" if even else ""
        raise ValueError(f"gpu_budget_mib: {limit_mib} MiB are too few: models ask for {sum(fixed)}{swap}{others}")
    return part_mib
