"""Fewer file descriptors than connections: a usual soft limit, and a hard one that leaves no room."""

import contextlib
import resource
import socket
import sys

import pytest
from served import REDSERVE, Served

from redserve.server.descriptors import RESERVED

LIMIT_S = 30.0
BODY = b'{"instances": [[%s]]}' % b",".join([b"0"] * 64)
REQUEST = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nConnection: close\r\n"
REQUEST += b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
os.execv(sys.argv[3], sys.argv[3:])
"""


def served(*, soft, hard, connections):
    program = (sys.executable, "-c", LIMITED, str(soft), str(hard), *REDSERVE, "serve")
    return Served("--max-connections", str(connections), program=program)


def connect(server):
    return socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=LIMIT_S)


def open_files_limits(server):
    return resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for another process's limits")
def test_the_soft_limit_is_raised_to_what_the_connections_need():
    with served(soft=256, hard=1_000, connections=512) as server:
        assert open_files_limits(server) == (512 + RESERVED, 1_000)
    assert "fewer connections" not in server.errors


def test_a_hard_limit_leaves_fewer_connections_and_an_end_in_good_order():
    with served(soft=256, hard=256, connections=4_096) as server, contextlib.ExitStack() as open_:
        begun = open_.enter_context(connect(server))
        begun.sendall(REQUEST[:-5])
        idle = [open_.enter_context(connect(server)) for _ in range(400)]
        assert b"too_many_connections" in idle[128].recv(65_536)
        server.signal()
        begun.sendall(REQUEST[-5:])
        assert begun.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
        assert server.wait() == 0
    assert "max_connections=128 asked=4096 open_files_limit=256" in server.errors
    assert "Traceback" not in server.errors
