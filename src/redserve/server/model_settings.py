"""What may differ from model to model: the server's settings say it for all, `model_config.py` for one."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from redserve.batching import BatchPolicy
from redserve.engine.base import Engine
from redserve.engine.buckets import BatchBuckets
from redserve.engine.curve import MAX_MEASURED_ROWS
from redserve.engine.lengths import LengthBuckets
from redserve.engine.onnx_options import Option, usable_cpus
from redserve.engine.onnx_session import Device
from redserve.errors import ModelLoadError
from redserve.models import ModelOptions
from redserve.server.gpu_budget import Claim, GpuBudget, Lease


def _lengths(value: object) -> object:
    """As a list, or separated by commas; in ascending order."""
    given = value.split(",") if isinstance(value, str) else value
    if given is None or not isinstance(given, (list, tuple)):
        return given
    try:
        sizes = tuple(int(size) for size in given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"write lengths such as 16,32,64, not {value!r}") from error
    return LengthBuckets(sizes=sizes).sizes


def _buckets(value: object) -> object:
    """A word, or sizes as a list or separated by commas; in ascending order."""
    if value in ("auto", "on", "off"):
        return value
    try:
        if not isinstance(value, (str, list, tuple)):
            raise TypeError
        sizes = tuple(sorted({int(size) for size in (value.split(",") if isinstance(value, str) else value)}))
    except (TypeError, ValueError) as error:
        raise ValueError(f"write auto, on, off, or sizes such as 1,4,16, not {value!r}") from error
    if not sizes or sizes[0] < 1:
        raise ValueError(f"a batch has at least one row, got {value!r}")
    return sizes


class ModelSettings(BaseModel):
    """How a model is loaded and served."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,  # they are the help texts of the command line
    )

    device: Device = "auto"
    """auto takes a GPU that works; cuda refuses to start without one; tensorrt without TensorRT on it"""
    device_id: int = Field(0, ge=0)
    """which GPU"""
    instances: int = Field(1, ge=1, le=64)
    """engines that run batches of a model side by side, fed by one queue"""
    slots: int | None = Field(None, ge=1, le=16)
    """batches that one engine has in progress at once (default: 2 on a GPU, to copy while computing, else 1)"""
    intra_op_threads: int | None = Field(None, ge=1)
    """CPU threads that share one run (default: all cores, shared among the instances)"""
    session_options: dict[str, Option] = {}
    """an entry of ONNX Runtime's session configuration; may be repeated"""
    provider_options: dict[str, Option] = {}
    """an option of the execution provider; may be repeated"""
    pinned: bool = True
    """gather batches for a GPU in page-locked memory"""
    cuda_graphs: bool = False
    """launch each run as one CUDA graph, of its batch size; for models whose sizes are fixed but for the rows"""
    gpu_memory_mib: int | None = Field(None, ge=1)
    """MiB of a GPU that a model's arenas may take, its instances together (default: its part of --gpu-budget-mib)"""
    batching: Literal["auto", "on", "off"] = "auto"
    """whether requests share a run; auto asks the model"""
    max_batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """rows run together, at most; auto measures which size is best"""
    batch_buckets: Annotated[BatchBuckets, NoDecode, BeforeValidator(_buckets)] = "auto"
    """sizes such as 1,4,16 that batches are padded to; on: powers of two; auto: those on a GPU, none on the CPU"""
    length_buckets: Annotated[tuple[int, ...] | None, NoDecode, BeforeValidator(_lengths)] = None
    """lengths such as 16,32,64: rows up to the same one share a batch, padded (default: rows of equal length do)"""
    mask_input: str = "attention_mask"
    """the input that is 0 where a row is padded, with --length-buckets"""
    max_queue_delay_ms: float = Field(0.0, ge=0, le=60_000)
    """how long the oldest row waits for company; 0 runs what is there"""
    slo_ms: float | None = Field(None, gt=0, le=3_600_000)
    """answer within this or refuse: the budget of requests that name none, and the bound of the queue"""
    request_timeout_ms: float = Field(30_000.0, gt=0, le=3_600_000)
    """budget of a request that names none in X-Request-Timeout-Ms, without --slo-ms"""
    max_queue_rows: int = Field(1024, ge=1)
    """rows that may wait; more are refused"""
    max_queue_mib: int = Field(256, ge=1)
    """MiB of tensors that may wait, and of bodies that may be on their way"""
    max_run_s: float = Field(60.0, gt=0)
    """seconds after which a batch is cut off"""
    inline_below_ms: float = Field(0.2, ge=0, le=1)
    """run batches on the event loop itself where the largest usually takes less; 0 never does"""
    finite: bool | None = None
    """refuse rows with NaN or infinity (default: at /predict yes, under /v2 no)"""

    @field_validator("batch_buckets")
    @classmethod
    def _fits_a_batch(cls, value: BatchBuckets, info: ValidationInfo) -> BatchBuckets:
        largest = info.data.get("max_batch_size")
        if isinstance(value, tuple) and isinstance(largest, int) and value[-1] > largest:
            raise ValueError(f"no batch is larger than max_batch_size {largest}")
        if value == "off" and info.data.get("cuda_graphs"):
            raise ValueError("cuda_graphs needs batches of few sizes")
        return value

    @field_validator("cuda_graphs")
    @classmethod
    def _has_graphs(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("device") == "cpu":
            raise ValueError("there are none on the CPU")
        if value and (info.data.get("slots") or 1) > 1:
            raise ValueError("an engine with graphs does one run at a time: ask for more instances in place of slots")
        return value

    @field_validator("gpu_memory_mib")
    @classmethod
    def _limits_memory_once(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and "gpu_mem_limit" in info.data.get("provider_options", ()):
            raise ValueError("the provider option gpu_mem_limit says the same in bytes: set one of them")
        return value

    def model_options(self) -> ModelOptions:
        """How the model is served; milliseconds become seconds."""
        return ModelOptions(
            max_batch_size=None if self.max_batch_size == "auto" else self.max_batch_size,
            policy=BatchPolicy(
                max_queue_delay_s=self.max_queue_delay_ms / 1000,
                max_queue_rows=self.max_queue_rows,
                max_queue_bytes=self.max_queue_mib * 2**20,
                slo_s=None if self.slo_ms is None else self.slo_ms / 1000,
            ),
            finite=self.finite,
            inline_below_s=self.inline_below_ms / 1000 or None,
            max_run_s=self.max_run_s,
            instances=self.instances,
            slots=self.slots,
            timeout_s=(self.slo_ms or self.request_timeout_ms) / 1000,
            lengths=self.lengths(),
            batch_buckets=self.batch_buckets,
        )

    def lengths(self) -> LengthBuckets | None:
        """Which rows of different lengths share a batch."""
        if self.length_buckets is None:
            return None
        return LengthBuckets(sizes=self.length_buckets, mask=self.mask_input, must=self.batching == "on")

    def load_engine(self, path: Path, *, budget: GpuBudget | None = None) -> Engine:
        """Load an ONNX file; blocks.

        Args:
            path: The file.
            budget: What all models may take of a GPU; the engine takes its part for as long as it lives.

        Raises:
            ModelLoadError: It cannot be loaded, or has no part of the GPU's memory left.
        """
        from redserve.engine.onnx_runtime import OnnxRuntimeEngine  # seconds to import, and an extra of its own

        threads = self.intra_op_threads
        if threads is None and self.instances > 1:
            threads = max(1, usable_cpus() // self.instances)
        lease = self._lease(budget)
        limit: dict[str, Option] = {"gpu_mem_limit": lease.mib * 2**20} if lease.mib else {}
        try:
            engine = OnnxRuntimeEngine.load(
                path,
                device=self.device,
                device_id=self.device_id,
                intra_op_threads=threads,
                provider_options=self.provider_options | limit,
                session_options=self.session_options,
                pinned=self.pinned,
                cuda_graphs=self.cuda_graphs,
                largest_batch=self._largest_batch(),
                batching=self.batching,
                freed=lease.give_back,
            )
        except BaseException:
            lease.give_back()
            raise
        if not engine.is_on_gpu:
            lease.give_back()
        return engine

    def _largest_batch(self) -> int:
        """That may be run: asked for, or measured."""
        if self.max_batch_size != "auto":
            return self.max_batch_size
        return self.batch_buckets[-1] if isinstance(self.batch_buckets, tuple) else MAX_MEASURED_ROWS

    def gpu_claim(self) -> Claim | None:
        """What it asks of a GPU; `None` where it stays on the CPU."""
        return None if self.device == "cpu" else Claim(self.device_id, self.gpu_memory_mib)

    def _lease(self, budget: GpuBudget | None) -> Lease:
        """Of nothing where nothing limits it."""
        claim = self.gpu_claim()
        if claim is None or (budget is None and claim.mib is None):
            return Lease(GpuBudget(0, []), self.device_id, 0)
        if "gpu_mem_limit" in self.provider_options:
            raise ModelLoadError("gpu_budget_mib: gpu_mem_limit is set as well; gpu_memory_mib claims a part of it")
        return (budget or GpuBudget(claim.mib or 0, [])).take(claim, instances=self.instances)
