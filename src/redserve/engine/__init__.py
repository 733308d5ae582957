"""What runs one batch: checked tensors in, arrays out; ONNX Runtime, or anything that fits `Engine`.

    load      file ─ onnx_session ─ onnx_runtime ─ batchability ─> engine ─ curve ─> max_batch_size, warm
                                                                     ├─ buckets ─> the batch sizes that run
                                                                     └─ length_probe ─> lengths ─ length_cost
    request   arrays ─ check_tensors ─> rows ─ group_of, of the lengths or of the shapes ─> (a queue)
    batch     requests ─ RowRunner: gather, run, check_outputs, cut ─> one list of views per request

`tensors.py`, `base.py` and `row_runner.py` need numpy and `ml_dtypes` alone, so that an engine of one's own needs
nothing else. ONNX Runtime is imported when the first model is loaded. Times below are the smallest seen on two cores
(`benchmarks/engine_cost.py`, `benchmarks/results/engine_cost.json`).

Decision: requests are checked before they queue, and never converted. ONNX Runtime reads big-endian arrays as noise,
broadcasts two inputs of unequal batch size, takes NaN and empty batches, and writes `None` as the text "None", all
without an error. What it does refuse fails the whole batch. The check costs 1.9 us for a row of 64 floats, 1.0 us
without `finite`.

Decision: what a run answers is checked too, for 2 us a batch: the number of outputs, dtypes, rows, and the shapes an
engine of one's own promises. A run that breaks its promise fails as a whole, since no row of it can be trusted; of the
shapes that an ONNX file declares only the rows are held to, exporters leave the sizes of the traced example there.

Decision: batchability is declared by the model, then tried. Names prove little: outputs carry other symbols than
inputs, and exporters leave a batch of 1 inside. So 1 and 3 rows are run at load, and each output's axis 0 has to
follow. Rows that change each other's answers run one by one (dynamically quantised models move by 2e-2): a client
must not get another answer, nor a glimpse of a neighbour's row, because somebody else asked at the same time. A row is
tried beside such as itself, and beside some that are 100 times as large, of either sign: a branch on a sum, or a scale
that is the largest number of the batch, shows there only. Such a run is interrupted after a second and ten times what
a usual one takes, since a loop may count by a value. It is a trial, and no proof.
`batching="on"` overrules that. Where the first axis has a fixed size above 1, such rows may be no batch at all, so each
request runs as it came.

Decision: rows of different lengths share no batch unless it is asked for, and then a batch is padded to the longest of
its rows, not to the end of their bucket. Of 64 texts of 4 to 128 tokens that wait, all-MiniLM-L6-v2 answers, in batches
of 8 on two cores, 339 a second each alone, 422 in batches of equal length, 298 in order of arrival, 494 in four buckets
padded to the longest and 454 padded to their end, 531 and 508 in eight; one alone, padded to its end, costs a fifth of
the rate (`benchmarks/length_buckets.py`, `benchmarks/results/length_buckets.json`). Fewer shapes, which padding to the
end would give, are worth more where each shape is compiled; ONNX Runtime does not. Whether answers stay the same is
tried at load, as with batches, by the shortest row of each bucket beside its longest; a row of which nothing counts is
left out, since models answer it by all that it is padded with.

Decision: padding repeats the last row. Zeros are no valid input everywhere (text, a divisor), and a model may be slow
or fail on what it was not made for; a copy of a row that is there anyway costs the same.

Decision: one copy a row, one run, no futures. Rows are concatenated into a kept buffer, a lone request is fed from
its own memory, results are views: 48 us on top of the run for 64 requests of one row, 11 us for 8, 2 us for one.

Decision: on the CPU `run`, on the GPU buffers on the device that stay, one set for each run in progress and shape. No
memory of the device is claimed for an input then, and CUDA graphs, which need fixed places, go the same way; on the CPU
it costs 11 us on the digits where `run` costs 5. Batches are gathered in page-locked memory, which the device reads by
itself, and copied there by the CUDA runtime through `ctypes`, since the copies of ONNX Runtime's Python API
(`update_inplace`, `bind_cpu_input`, `OrtValue.numpy`) keep the interpreter's lock until they are done, as its source
shows, and a batch of 32 images has 19 MB. Where no CUDA runtime is found ONNX Runtime copies. Refused: memory that ONNX
Runtime locks by itself, which it offers for providers that are plug-ins only. What all that gains on a GPU is not
measured yet.

Decision: one run uses all the cores that the process may use, none of them spinning. At best, on two idle cores, a
second thread takes a perceptron of 1.6 M parameters from 1.93 to 1.08 ms at 64 rows; that is the lowest time of a run
on a machine that was not quiet, whose medians gained little. Digits lose 7 us a batch (the median) from 16 rows on,
less than the HTTP work of one request. Where the other core is busy with something else the gain is gone;
`intra_op_threads=1` is for that.

Decision: what a batch takes is measured once, at load, and on the CPU by the clocks of the thread and the process.
The clock on the wall made 4 to 16 rows the best size of a perceptron (256-3x2048-10, two threads), for good, where a
server began beside six busy processes, four times of four, for a run that is longer than a turn of the scheduler
waits for the next one; now it is 64 or 128, as on a quiet machine. What the other threads of ONNX Runtime take
counts, too, since they may do the work of the one that calls, and the least of all runs is taken, since they may have
no core at all. Refused: the work alone, in seconds of processor, which says nothing of how well a size uses many
cores.

Decision: two runs in progress on one session of a GPU. While one copies the other computes, each on a stream of its
own; the launches of more than two or three would contend (ONNX Runtime issue 20494). Both are warm before the first
request, by runs beside each other, since ONNX Runtime makes what each needs when they first overlap. Sessions of their
own would hold the weights twice. With CUDA graphs they have to, since a session has one thread then: that is
`instances`, which the user asks for, not a second session in silence. Whether it hides the copies is not measured yet.

Decision: memory is given back after large runs that do not come again, not by each large run. What is free is given
back as a whole, so the next full batch claims its own anew: once in 256 runs, at most. What the measurement of batch
sizes took goes before the warm-up. With CUDA graphs nothing is given back, since they go on using what looks free.

Decision: TensorRT is asked for by name. It builds for minutes and takes libraries that no wheel of ONNX Runtime brings,
so `auto` never tries it. The shapes it builds for are those of the batches, from the file, or none: a guess at an open
length would be wrong for somebody.

Decision: CUDA graphs in one thread a session, and only for shapes that are known. ONNX Runtime keeps graphs by thread
and captures in CUDA's global mode, which its source calls fit for one thread; so all runs of such a session are made by
a thread of its own, and all is captured at load. The way there and back costs a run 42 us (digits, on two CPU cores),
so graphs are off by default: they pay for models of many small kernels. Refused: a graph for each length of a text,
since batches are padded to their longest row and no length comes often enough.

Decision: bfloat16 is served through I/O binding, as raw memory, since `run` knows no such array. On the CPU, ONNX
Runtime 1.32 has hardly a kernel for it but `Cast`; a model that needs another one is refused when it is loaded, in ONNX
Runtime's words.

Decision: no silent fallback. `enable_fallback=0`, since ONNX Runtime otherwise rebuilds the session on the CPU in the
middle of a run; `device="auto"` reports what `get_providers()` says and the reason; `device="cuda"` refuses to start.
Unknown options are refused, since ONNX Runtime ignores them.

Decision: an interrupt names a thread. Instances may share one session, and cutting off one hung batch must not cost
another its answers. The flag is looked at between nodes: a run of many small nodes ends at once, one long kernel runs
out.
"""

from redserve.engine.base import Batchability, Engine
from redserve.engine.curve import CurvePoint, choose_max_batch_size, measure_curve, warm_up
from redserve.engine.onnx_runtime import OnnxRuntimeEngine
from redserve.engine.row_runner import RowRunner
from redserve.engine.tensors import (
    Array,
    Tensors,
    TensorSpec,
    check_tensors,
    dtype_name,
    find_not_finite,
    group_of,
    join_rows,
    size_bytes_of,
    split_rows,
)

__all__ = [
    "Array",
    "Batchability",
    "CurvePoint",
    "Engine",
    "OnnxRuntimeEngine",
    "RowRunner",
    "TensorSpec",
    "Tensors",
    "check_tensors",
    "choose_max_batch_size",
    "dtype_name",
    "find_not_finite",
    "group_of",
    "join_rows",
    "measure_curve",
    "size_bytes_of",
    "split_rows",
    "warm_up",
]
