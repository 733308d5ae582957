"""Room for connections: each takes a file descriptor, of which the system gives a process so many and no more.

The usual soft limit is 1,024, far below `--max-connections`. A process that has none left can take no connection, read
no file, and not even close in good order.
"""

import contextlib
import logging
import resource

logger = logging.getLogger("redserve.server")

RESERVED = 128
"""For all that is no connection (listening, models, keys, the engine), and for connections that are being refused."""


def room_for(connections: int) -> int:
    """How many connections there may be, `connections` at most; raises the process's soft limit as far as that needs.

    The hard limit is the system's word. Where it leaves no room for all, the log says so.
    """
    wanted = connections + RESERVED
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < wanted:  # RLIM_INFINITY is -1
        with contextlib.suppress(ValueError, OSError):  # macOS has a limit below its hard one
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard < 0 else min(wanted, hard), hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = connections if soft < 0 else min(connections, soft - min(RESERVED, soft // 2))
    if room < connections:
        logger.warning(
            "fewer connections than asked for: the limit of open files leaves no room (ulimit -n)",
            extra={"max_connections": room, "asked": connections, "open_files_limit": soft},
        )
    return room
