"""One version of one model, from its file to its last answer: load, warm up, infer, drain."""

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from functools import partial
from typing import final

from redserve.batching import Answer, Batcher, BatchObserver, Ticket
from redserve.engine.base import Engine
from redserve.engine.curve import CurvePoint
from redserve.engine.length_cost import PaddingCost
from redserve.engine.lengths import Lengths
from redserve.engine.tensors import Tensors, join_rows, split_rows
from redserve.errors import ModelNotReady, RedserveError, ShuttingDown
from redserve.models.daemon import in_daemon_thread
from redserve.models.entrance import Entrance
from redserve.models.free import free
from redserve.models.monitor import Monitor
from redserve.models.options import ModelOptions
from redserve.models.prepare import Outputs, prepare, try_out

logger = logging.getLogger("redserve.models")


_PROBES = "probes"
"""A group of their own, so that no client's row is in a probe's batch and to blame for how it goes."""


class ModelState(StrEnum):
    """Where a model stands; only a `ready` one takes requests, healthy or not."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    STOPPED = "stopped"


@final
class ServedModel:
    """A model that is loading, ready, failed or stopped.

    Args:
        name: How clients call it; the `model` label of its metrics.
        version: Its version, as text.
        load_engine: Makes an engine; called in a thread, once for each instance.
        options: How it is served.
        observer: Told of each batch.
        example: One row for the documentation; without it, one is made up.

    Attributes:
        state: Where it stands.
        reason: Why it is not ready, or why it is unhealthy although it is, in words; empty when all is well.
        on_change: Called with the model whenever its state or reason has changed.
        has_begun: Whether it was told to load.
        engine: What runs its batches, once loaded; the first of its instances.
        runs_at_once: Batches that may be in progress, of all instances, once loaded.
        policy: Its batching numbers; the batch size is right once it is loaded.
        curve: Measured seconds per batch size, once loaded.
        lengths: Which rows of different lengths share a batch, once loaded; `None`: none do.
        padding: What that costs, by bucket.
        example: One row and the model's answer to it, once loaded; `None` where no made-up row runs.
    """

    def __init__(
        self,
        name: str,
        load_engine: Callable[[], Engine],
        *,
        version: str = "1",
        options: ModelOptions | None = None,
        observer: BatchObserver | None = None,
        example: Tensors | None = None,
    ) -> None:
        self.name = name
        self.version = version
        self.options = options or ModelOptions()
        self.policy = self.options.policy
        self.state = ModelState.LOADING
        self.reason = "loading and warming up"
        self.has_begun = False
        self.on_change: Callable[[ServedModel], None] = lambda model: None
        self.curve: tuple[CurvePoint, ...] = ()
        self.lengths: Lengths | None = None
        self.padding: tuple[PaddingCost, ...] = ()
        self.runs_at_once = 1
        self.example: tuple[Tensors, Outputs] | None = None
        self._load_engine = load_engine
        self._prepare = partial(prepare, load_engine, self.options, example=example)
        self._observer = observer
        self._engines: tuple[Engine, ...] = ()
        self._batcher: Batcher[Tensors, Outputs] | None = None
        self._entrance: Entrance | None = None
        self._holders = 0
        self._is_let_go = asyncio.Event()
        self._is_let_go.set()

    @property
    def engine(self) -> Engine:
        """What runs its batches.

        Raises:
            ModelNotReady: It is not loaded.
        """
        if not self._engines:
            raise ModelNotReady(f"model {self.name!r} is not ready: {self.reason}")
        return self._engines[0]

    @property
    def entrance(self) -> Entrance:
        """What every request passes: its `infer` is ours, without the way through plain Python.

        Raises:
            ModelNotReady: It is not loaded.
            ShuttingDown: It was stopped before.
        """
        if self._entrance is None:
            if self.state is ModelState.STOPPED:
                raise ShuttingDown
            raise ModelNotReady(f"model {self.name!r} is not ready: {self.reason}")
        return self._entrance

    @property
    def labels(self) -> Mapping[str, Sequence[str]]:
        """Names of the classes of an output, by the output's name; of few outputs, or of none."""
        return self.options.labels

    @property
    def is_ready(self) -> bool:
        """Whether requests are welcome: it is loaded, and as far as its runs tell it works."""
        return self.state is ModelState.READY and not self.reason

    @property
    def is_stalled(self) -> bool:
        """Whether every instance hangs in calls that were given up."""
        return self._batcher is not None and self._batcher.is_stalled

    @property
    def is_inline(self) -> bool:
        """Whether its batches run on the event loop, rather than in threads of their own."""
        return self._batcher is not None and self._batcher.is_inline

    @property
    def queued_rows(self) -> int:
        """Rows that wait for a batch."""
        return self._batcher.queued_rows if self._batcher is not None else 0

    def try_out(self) -> None:
        """Load one engine, hold the options against it, and free it, whatever the state; blocks.

        Raises:
            ModelLoadError: It cannot be loaded as the options say.
        """
        try_out(self._load_engine, self.options)

    async def load(self) -> None:
        """Load, measure, warm up; then `state` is `ready`, or `failed` with the reason."""
        self.has_begun = True
        try:
            prepared = await in_daemon_thread(self._prepare, name=f"redserve-load-{self.name}")
        except RedserveError as error:
            self._fail(str(error))
            return
        except Exception as error:  # a fault of the engine, not of the file or the settings: say where
            self._fail(f"{type(error).__name__}: {error}", fault=error)
            return
        self._engines, self.curve, self.example = prepared.engines, prepared.curve, prepared.example
        self.lengths, self.padding = prepared.lengths, prepared.padding
        if self.state is ModelState.STOPPED:
            await self._free()
            return
        self.policy = replace(self.policy, max_batch_size=prepared.max_batch_size, batch_sizes=prepared.sizes)
        self.runs_at_once = len(prepared.runners)
        self._batcher = Batcher(
            prepared.runners,
            policy=self.policy,
            name=self.name,
            version=self.version,
            observer=Monitor(
                self, can_probe=self.example is not None, changed=self._health_changed, observer=self._observer
            ),
            max_run_s=self.options.max_run_s,
            inline_below_s=self.options.inline_below_s if prepared.is_short else None,
            until_quiet=prepared.shares_cores and self.policy.linger,
            service_times_s={point.rows: point.seconds for point in self.curve},
            # On the loop, like the check: less than 1 ms for the 1,024 rows of 64 that a request may have by default
            # (benchmarks/results/engine_cost.json).
            split=split_rows,
            join=join_rows,
        )
        self._entrance = Entrance(
            self._batcher.intake,
            self.engine.inputs,
            is_row_wise=self.engine.batchability.is_row_wise,
            finite=self.options.finite,
            max_queue_rows=self.policy.max_queue_rows,
            lengths=self.lengths,
        )
        self._become(ModelState.READY, "")
        logger.info(
            "model is ready",
            extra={
                "model": self.name,
                "version": self.version,
                "provider": self.engine.provider,
                "max_batch_size": prepared.max_batch_size,
            },
        )

    def infer(
        self,
        tensors: Tensors,
        answer: Callable[[Answer[Outputs]], None],
        *,
        deadline_s: float = math.inf,
        finite: bool = True,
        is_checked: bool = False,
    ) -> Ticket:
        """Run `tensors`, in a batch with others where they fit; `answer` is called once, on the loop.

        Args:
            tensors: The rows.
            answer: Gets the outputs, or what went wrong.
            deadline_s: When the answer is due, by `time.perf_counter()`.
            finite: Refuse rows that hold NaN or infinity, where the options leave that open.
            is_checked: The one input, which has rows, is known to be what the model takes, and finite.

        Raises:
            BadRequest: The tensors do not fit the model.
            TooManyRows: They are more rows than may wait at all.
            QueueFull: Too much waits already.
            PredictedLate: The answer would come after its deadline.
            DeadlineExpired: The deadline has passed.
            ModelNotReady: It is not ready.
            ShuttingDown: It is draining.
        """
        return self.entrance.infer(tensors, answer, deadline_s=deadline_s, finite=finite, is_checked=is_checked)

    def probe(self, answer: Callable[[Answer[Outputs]], None]) -> None:
        """Run the example, behind whatever waits; `answer` is called once, on the loop.

        Raises:
            ModelNotReady: It is not loaded, or no made-up row runs.
            QueueFull: Too much waits already.
            ShuttingDown: It is draining.
        """
        if self._batcher is None or self.example is None:
            raise ModelNotReady(f"model {self.name!r} has no example to run")
        row, _ = self.example
        self._batcher.submit(row, answer, group=_PROBES)

    def hold(self) -> None:
        """Whoever has found this model, and needs a thread before it can call `infer`, keeps it open until `let_go`."""
        self._holders += 1
        self._is_let_go.clear()

    def let_go(self) -> None:
        """Undo one `hold`."""
        self._holders -= 1
        if not self._holders:
            self._is_let_go.set()

    async def drain(self, *, grace_s: float | None = None) -> None:
        """Take no more, finish what waits and runs within `grace_s`, free the engines.

        `None` has all the time that it takes, also for those who hold the model. A second call, sooner, cuts it short.
        """
        self._become(ModelState.STOPPED, "stopped")
        if grace_s is None:
            await self._is_let_go.wait()
        batcher = self._batcher
        if batcher is not None:
            await batcher.aclose(grace_s=grace_s)
        await self._free()

    async def _free(self) -> None:
        """Let go of all that holds memory. In a thread: giving a hundred megabytes back takes milliseconds."""
        engines, self._engines = self._engines, ()
        self._batcher = self.example = None
        if self._entrance is not None:
            self._entrance.close()
        if engines:
            await in_daemon_thread(partial(free, engines), name=f"redserve-free-{self.name}")

    def _fail(self, reason: str, *, fault: Exception | None = None) -> None:
        self._become(ModelState.FAILED, reason)
        logger.error(
            "model failed to load",
            extra={"model": self.name, "version": self.version, "reason": reason},
            exc_info=fault,
        )

    def _health_changed(self, reason: str) -> None:
        if self.state is not ModelState.READY:
            return
        self._become(ModelState.READY, reason)
        if reason:
            logger.error("model is unhealthy", extra={"model": self.name, "reason": reason})
        else:
            logger.info("model is healthy again", extra={"model": self.name})

    def _become(self, state: ModelState, reason: str) -> None:
        self.state, self.reason = state, reason
        self.on_change(self)
