"""Which parts of a failed batch to run again, so that only the requests at fault fail: pure, told how each run went.

    run 0..8: failed ──> run 0..4: failed ──> run 0..2: fine, so the fault is in 2..4
                     └─> run 4..8: fine   └─> run 2..3: fine ──> run 3..4: failed, found

Halves, widest first, so that a budget that runs out has narrowed every fault a little rather than one completely.
"""

from collections import deque
from collections.abc import Generator


def parts_to_run(size: int, *, max_reruns: int) -> Generator[range, bool, None]:
    """Yield what to run next of a batch of `size` requests, the whole first; `send` whether it ran without raising.

    A part that failed and is not run again in smaller parts has failed for good. No request fails for good on
    suspicion alone where the budget allows to try it: every single one left is run by itself, since a fault may have
    been of the size (memory) or of the moment.
    """
    if (yield range(size)):
        return
    failed = deque([range(size)])
    while failed:
        part = failed.popleft()
        if len(part) == 1:
            continue
        middle = len(part) // 2
        left, right = part[:middle], part[middle:]
        if max_reruns == 0:
            return
        max_reruns -= 1
        if (yield left):
            if len(right) > 1:  # the fault must be there: halve it without asking
                failed.append(right)
                continue
        else:
            failed.append(left)
        if max_reruns == 0:
            return
        max_reruns -= 1
        if not (yield right):
            failed.append(right)
