"""Whether the modules that every request passes are compiled, as `hatch_build.py` does where there is a C compiler.

Decision: mypyc makes C of the typed Python as it is, so there is one source, which runs and is tested both ways. A
small request takes 6.5 us in process instead of 11.7 (64 together, without sockets, one core). Not compiled is what
users derive from, copy or send to other processes (`batching/observer.py`, `batching/policy.py`), what is called less
often than batches run, what derives from a framework's classes or is made of decorators, and what callers await
(`batching/batcher.py`, `models/served_model.py`): mypyc raises into a coroutine in a way that is deprecated since
Python 3.12, so that under `-W error` the warning takes the error's place. What a request passes in such a file is
compiled in one of its own (`batching/intake.py`, `models/entrance.py`): the latter saves 0.3 us.

What a compiled module is held to: a value of another type than its annotation says is a `TypeError` where it arrives,
so what users bring is annotated as wide as it may be, and made an `int` or a `float` there; a count that may meet a
`float` is annotated as both (`metrics.cells.Number`), else it becomes one; no class within a class, no generic
dataclass; and its classes are `final`, since none can be derived from. They have no docstrings when they run.
"""

from redserve.batching import waiting

IS_COMPILED = not waiting.__file__.endswith(".py")
