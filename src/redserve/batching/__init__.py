"""Many requests in, few calls out: dynamic batching for any function, without numpy, without the web.

Theory of operation
    submit ──> Admission ──> BatchQueue ──> an idle worker takes a batch ──> the function ──> answers
               (in time?)    (groups)       (a thread or a task)             (again in parts, where it failed)
                   └────────────── CostModel <── how long it took ──────────────┘

    Requests wait in one line; a batch is taken from it by a worker that has nothing to do, at the last moment, so
    whoever arrives while the engine is busy joins the next batch. Load makes the batches: at low load they are small
    and start at once, at high load they are full. The engine thread takes its next batch itself; the event loop hears
    of each call once, by one `call_soon_threadsafe` with all answers.

    `admission`, `batch_queue` (of `line`s of what is `waiting`), `window`, `cost`, `isolate` and `linger` decide, and
    are told the time. `dispatcher` holds the one lock, for the time of an offer, a take or a cancel. `workers` are the
    threads and tasks, `inline` the loop itself, which make their `attempts` at a `run`, `crew` is their side on the
    loop with the `watchdog` and the `expiry`, `intake` takes requests, `turns` announce them, after some `patience`,
    `batcher` and `batched` are what callers see.

The contract
    - `max_batch_size` counts rows. Requests share a batch only when their groups are equal; the group whose head
      arrived first goes first, and inside a group nobody is overtaken; with deadlines, who is due first goes first.
    - A deadline is the request's own, or `slo_s` after its arrival. Who is not likely to be in time is refused at once
      with `PredictedLate`, and so is who waits, will be late and makes room for a newcomer; whose deadline passes in
      the queue, or cannot be kept any more when a batch is taken, is answered `DeadlineExpired`. Neither ever runs, and
      both are told even while the function hangs. What runs is never abandoned for a deadline: a late answer is an
      answer. An empty queue takes everybody. Without any deadline all of this costs nothing.
    - Without a deadline a request is never late; among those with deadlines it takes its turn `PATIENCE_S` after its
      arrival.
    - An idle engine never waits while work is queued, by default and without `until_quiet`; one on the loop waits one
      turn of it, after those who wait for the same core. A request waits for the running call and for the batches of
      those ahead of it: one for each `max_batch_size` rows of a group, the last of which it joins.
    - With `max_queue_delay_s` an idle engine may wait until its oldest request is that old; a group that fills a batch
      earlier does not wait for it. Under load it changes nothing, since the oldest is that old already. It buys time of
      the device, not latency: choose it where the device is shared or billed.
    - A request of more than `max_batch_size` rows is split, queued as one or refused as one, joined, answered once.
    - `max_queue_rows` and `max_queue_bytes` bound what waits beside each other. An empty queue takes a request of any
      size: it would otherwise never run, and it is in memory already.
    - Every request taken is answered exactly once, on the loop: with its result, a `ModelError`, `RunTimeout`,
      `PredictedLate`, `DeadlineExpired` or `ShuttingDown`; or never, when it was cancelled before. Cancelled while
      queued, its rows leave the queue; cancelled while running, nobody notices.
    - A function that raises is run again with parts of its batch, at most `max_reruns` times, until only the requests
      at fault fail; so it should be safe to repeat. It is not run again while more than half of `max_queue_rows` waits,
      or somebody was refused or would be late for it; who was not tried alone is told so, by a `ModelError`. One that
      returns the wrong number of results, or no list of them, fails all it was called with, since no result can be
      trusted.
    - A call that takes longer than `max_run_s` is given up: its requests fail, its result will be ignored, and
      another thread goes on with the queue, so the function must bear being called again while the hung call is still
      in it. After `MAX_STUCK` such threads of an instance it rests; when all instances rest, requests fail at once
      instead of waiting, until a thread comes back.

Decision: greedy, no timer.
    An engine that is idle runs what there is. Refused: waiting a fixed time for company, as most servers do by
    default. In virtual time, one row a request, 4 ms + 0.2 ms a row, the mean latency of running at once is within
    0.3 % of that of the best of five delays (0.5 to 10 ms) at every load from 0.02 to 0.95; 10 ms costs a factor of
    2.6 at the lowest. `benchmarks/greedy_vs_delay.py`, `benchmarks/results/greedy_vs_delay.json`; held by a test.

Decision: linger after a batch, gated.
    Clients that send the next request when the last is answered come in two halves that never meet: greedy runs the
    waiting half just before the answered one is back. So an engine thread that has just finished may wait up to
    0.5 ms, or 10 % of the fixed cost of a batch, but only where the arrivals of such windows so far would save three
    times what those who wait would lose. On the real threaded Batcher with a 5 ms engine and clients that come
    straight back it serves 1.68, 1.50, 1.44 and 1.31 times as many requests for 2, 4, 16 and 32 of them, with a lower
    p99; with one client, 64, or a think time of 2 ms the mean changes by less than 3 %, though the p99 of 4 such
    thinkers rose by 18 %. Poisson arrivals pay at most 0.5 % of their mean latency in simulation (a test); in real
    time, at loads up to 0.6, they measured -2.5 to +0.9 %, which is the noise. `benchmarks/linger.py`,
    `benchmarks/results/linger.json`. Async functions do not linger, since a loop's timers are no finer than 1 ms, but
    give the loop one turn after each batch, in which those just answered may come back.

Decision: on few cores a batch starts when the loop is quiet, where the caller says so.
    A thread that computes on all cores there are takes them from the loop, which then brings the next rows later, in
    two halves again; and each of the engine's own threads waits for the one that the loop has delayed. So with
    `until_quiet` a batch starts once a turn of the loop has brought nobody, or 5 ms later, or when one is full or a
    deadline would be missed; after a run, too, the thread leaves it to the loop when to start the next. A perceptron of
    256-3x2048-10 on two cores, as it is served by default: 16, 64 and 128 connections that wait for each answer get
    1.28, 1.17 and 1.14 times as many, with p99 0.60, 0.75 and 0.76 times as long; of Poisson arrivals, 4,000 a second
    are answered sooner (p50 0.82, p99 0.73 times), 200 and 1,000 as before, and so is one connection.
    `benchmarks/patience.py`, `benchmarks/results/patience.json`. Refused where cores are left, since a start beside the
    loop then wins: with one thread of two cores it lost 5 to 10 %; more than two were not measured.

Decision: a batch on the loop gives way, once.
    The clients of a busy machine, or what brings their requests, and other processes of the server wait for the same
    cores. A batch that starts at once holds few rows, the first to come back; one that lets the others run before it,
    by `sched_yield`, and then takes three turns of the loop, in which their sockets are read and the tasks that this
    starts submit, holds twice as many, and its fixed cost is shared. The small perceptron as two processes: 16, 64 and
    256 connections get 1.09, 1.05 and 1.03 times as many, with p99 1.61, 1.56 and 0.93 times as long (0.5, 1.7 and 5.3
    ms); as one process 4 get 1.33 times as many, 16 to 256 0.97 to 0.99 times, with p99 0.78, 0.72, 0.62 and 0.99 times
    as long. Poisson arrivals of 1,000 and 10,000 a second: medians within 2 %. The same benchmark. Whoever computes
    beside it takes a core for milliseconds, each time: in a trial without the rests of `GiveWay`, 4 connections beside
    such a process on each core got a fifth of the answers; with them 16 and 64 get 1.04 and 1.09 times as many as
    without giving way, and one connection, which never gives way, 0.84 times: which of the processes shares a core with
    whom decides. Refused after trials: a further turn without giving way, a timer (cores lie idle), giving way until
    nobody comes (no better).

Decision: threads of our own.
    One daemon thread an instance, asleep on a raw lock. `run_in_executor` was refused: a thread of its pool cannot take
    its next batch by itself, each batch costs a chain of futures, and the pool waits at exit for a call that hangs.

Decision: short calls on the loop itself, where the caller says so.
    Two switches of threads cost a batch more than a model of tens of microseconds. So `inline_below_s` lets a batcher
    call its function on the loop, one batch a turn, so that other events are heard in between. Under load, with cold
    caches and other processes, such a call was seen to take four times what it took at warm-up, so only a call that
    usually takes more than that has grown; a thread makes it from then on. So it does when a call hangs, which is seen
    by a thread that looks eight times a second, interrupted, and made again. Refused: leaving it there for good, since
    busy processes beside the server, or a pause of all processes, made it so for a model of 12 us, and when they were
    over it answered 62,000 requests/s for 83,000. The loop has it again after 10 s, or twice as long each time it has
    grown again, up to the 160 s that follow a hang, and not before the thread's calls are short: a call that has grown
    for good would block the loop ten times over each time. Refused: doing this for every function, since a call that
    cannot be interrupted would stop the whole server.

Decision: isolate by halves, widest first.
    One bad request of 32 costs 6 to 10 more runs and nobody else an answer. A half that must hold the fault, because
    the other ran well, is halved unseen. A single request is always tried alone before it fails, because the fault
    may have been the size of the batch. Refused: running each one alone, 32 runs.

Decision: one mechanism for every deadline, and choose late.
    Refuse at the door, run who is due first, and when a batch is taken decide once more with what is known by then: who
    forces a small batch is passed over, and while more wait than fit and some would hardly be in time, the start is
    taken that brings the most rows likely in time per second, given the noise. The choice of the start is what matters
    under overload, when somebody has to go. In virtual time, mean of 10 seeds, at 1.2 and 2 times the capacity 98.6 to
    99.6 % of it are answered in time with steady service times, 94.9 to 98.7 % with 30 % noise, and at 0.7 times 0.3
    points less than by plain FIFO, at most. On shapes that had no part in the choice, and at 5 times: 96.5 % or more of
    the best of four other policies in the same cell, and 90.5 % in the worst seed.
    `benchmarks/overload_policies.py`, `benchmarks/results/overload_policies.json`; held by tests in a shorter form.
    Refused: shrinking a batch to save its oldest, for which all others pay; head drop, which a tight deadline at
    the head of the queue turns into a disaster (36 % with mixed deadlines); CoDel, which knows no deadlines.

Decision: who will be late makes room.
    Before a newcomer is refused, those who wait and would be late by the mean are told so at once, if it can be in time
    without them. A batch that took longer than expected makes a whole batch of those behind it late; they would
    otherwise hold their places until it is theirs, and leave the engine idle when nobody comes after them: bursts at
    1.2 times and a device that turns half as fast at 5 times gained 1 to 2 points of goodput.

Decision: nobody is passed over for being small.
    A window whose requests are surely in time runs even if the next request is too large to fill it up. Refused: always
    the most rows a second. Beside requests of 32 rows, those of one row then starve: at 0.7 times the capacity 79 % of
    them are answered in time and 95 % of the large ones, at 2 times 7 and 50 %; as it is, 96 and 93 %, 62 and 45 %.
    It costs up to 7 % of the rows a second, with such a mixture, under overload.

Decision: who takes the batch decides whether to pad it.
    Where only some sizes run, nine rows are padded to 16, or run as eight and one in the next batch, whichever brings
    more rows a second by what each size takes. The queue decides it when the batch is taken, since it alone can leave
    the ninth for those who come; the function only pads. With 8 and 16 rows in 1.0 and 1.5 ms padding begins at 12. At
    low load, too, cutting down answers sooner on average: eight after 1 ms and one after the next, against nine after
    1.5. Refused: the cheapest cover of the rows by several runs in the function, which keeps the eight until the ninth
    is done; always padding up, which on a device that is busy at 8 halves the rate.

Decision: one standard deviation at the door.
    Who is in time by the mean alone often has to make room later. So all that runs before may take one standard
    deviation longer, by the noise of all batches. On 34 workloads (those of the tests and 13 others, one seed) the mean
    goodput at 0.7, 1.2, 2 and 5 times the capacity is 66.3, 90.5, 91.2 and 90.4 % without, 66.3, 90.6, 91.3 and 90.5 %
    with it, and 17, 22, 30 and 39 % fewer of those let in have to go without an answer.

Decision: a cost model that errs short, and is corrected by all sizes at once.
    Sizes that were never seen are predicted like the largest that was, so that they are tried; a mean time per row
    learnt at low load would refuse everything for ever. When recent batches took what chance does not explain, all
    sizes are scaled: a device that turns half as fast is known after a dozen batches. That replaces a fallback on
    drift. Where five in a row take three times as long or more, whatever was known is forgotten, and so is, as soon as
    it runs, a size that has not run for long. Refused: scaling all sizes by what those five took. On a machine that
    stalls, those that ran came down again and the others did not: two minutes of changing load beside other processes
    made 11 s of 40 us, and a server refused nearly everybody. The sized cap (rows for which the budget has time, less
    two full batches) holds only while fewer than two batches are known, and nothing was measured beforehand: beside
    predictions it would refuse who could be served.

Decision: no reruns under overload.
    At twice the capacity with 1 % of bad requests, a quarter of the batches of 32 fails. Isolating takes 6 to 10 runs
    that would answer hundreds of others: goodput was 37 to 42 % of capacity with reruns, and is about 70 % without.
"""

from redserve.batching.batched import Batched, batched
from redserve.batching.batcher import Batcher
from redserve.batching.observer import BatchObserver, BatchRecorder
from redserve.batching.policy import BatchPolicy
from redserve.batching.report import BatchReport
from redserve.batching.request import Answer, Ticket

__all__ = [
    "Answer",
    "BatchObserver",
    "BatchPolicy",
    "BatchRecorder",
    "BatchReport",
    "Batched",
    "Batcher",
    "Ticket",
    "batched",
]
