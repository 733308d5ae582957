"""Whether the modules that every request passes are compiled, as `hatch_build.py` does where there is a C compiler.

Decision: mypyc makes C of the typed Python as it is, so there is one source, which runs and is tested both ways. A
small request takes 6.9 us in process instead of 11.9 (64 together, without sockets, one core). Not compiled is what
is called less often than batches run, what derives from a framework's classes, and what is made of decorators.

What a compiled module is held to: a value of another type than its annotation says is a `TypeError` where it arrives; a
count that may meet a `float` is annotated as both (`metrics.cells.Number`), else it becomes one; no class within a
class, no generic dataclass; and its classes cannot be derived from outside.
"""

from redserve.batching import waiting

IS_COMPILED = not waiting.__file__.endswith(".py")
