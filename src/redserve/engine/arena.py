"""When memory of the device that grew for a rare large batch is given back: pure logic, told of each run.

warm-up: sizes that are usual ─> a larger run: the arena has grown ─> RARE runs without another ─> give back

ONNX Runtime's arenas keep what their largest run has taken. Giving back takes everything that is free, so that the next
full batch claims its memory anew; whoever sends large batches now and then had better pay for them once.
"""

RARE = 256
"""Usual runs after which what is larger than they is rare."""


class ArenaWatch:
    """Decides for one session; without a warm-up nothing is rare.

    Args:
        device: As ONNX Runtime calls it: `gpu:0`.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self._is_warming = False
        self._usual_bytes: int | None = None
        self._runs_since: int | None = None  # a larger one; `None`: there was none
        self._is_due = False

    def begin_warm_up(self) -> None:
        """What has run so far was to measure: the next run gives it back, those after it are usual."""
        self._is_warming = self._is_due = True
        self._usual_bytes = 0

    def end_warm_up(self) -> None:
        """Whatever is larger from now on is not usual."""
        self._is_warming = False

    def gives_back(self, size_bytes: int) -> bool:
        """Whether a run, with inputs of so many bytes, is to give back what is free when it ends."""
        if self._is_due:
            self._is_due = False
            return True
        if self._usual_bytes is None:
            return False
        if size_bytes > self._usual_bytes:
            if self._is_warming:
                self._usual_bytes = size_bytes
            else:
                self._runs_since = 0
        elif self._runs_since is not None:
            self._runs_since += 1
            if self._runs_since == RARE:
                self._runs_since = None
                return True
        return False
