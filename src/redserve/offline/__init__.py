"""Batch inference without a server: rows from a file, answers into a file, with the engine and codecs of the server.

    source ─ blocks of rows ─> (engine thread) batches, the failed ones again in parts ─> writer ─> OUT.partial
      └ a row that cannot be read                └ a row that fails alone                    └ mark ─> OUT.partial.state
    the end ─> OUT

What a row is answered is what `/predict` answers it, and rows keep their order. Memory is bounded by a few blocks.

Decision: blocks begin and end at the same rows whatever happens. Floating-point answers may change in their last digits
with the rows that run beside them, so a job that was broken off goes on at the edge of a block, with the batch size it
was begun with; its output is byte for byte that of a job that was not.

Decision: what is done is known by content. The mark holds the SHA-256 of the input that is done, not its name or time:
a copy of the input goes on, also when rows beyond the mark were corrected or added; an input that is another one below
the mark is refused, as is another model. Reading the part that is done once more costs about a second a gigabyte.

Decision: output is appended, never mapped. A full disk is then an error that can be told, not a signal that kills the
process; and the size of what was written with certainty is all that a mark has to say of it.

Decision: one thread runs the engine while another reads, parses and writes. With an engine that leaves the core alone
for as long as the rest takes (0.8 ms for 64 digits), that is 1.4 to 1.6 times as fast as one after the other; with an
engine on the same, busy, cores it is as fast.

Decision: the input of a pipe, and the output into one, are not resumable. They are for rows that something else keeps.
"""

from redserve.offline.ends import Job
from redserve.offline.failures import JobFailed
from redserve.offline.job import Summary, predict
from redserve.offline.progress import reporter_for
from redserve.offline.stop import Stopped, StopSignals
from redserve.offline.terms import fingerprint

__all__ = ["Job", "JobFailed", "StopSignals", "Stopped", "Summary", "fingerprint", "predict", "reporter_for"]
