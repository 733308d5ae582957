"""Serve the demo model as the README says, run the `curl` line that the server prints, and end it with SIGTERM."""

import json
import signal
import subprocess
import sys

server = subprocess.Popen(["redserve", "serve", "--port", "0"], stdout=subprocess.PIPE, text=True)
try:
    assert server.stdout is not None
    lines = []
    for line in server.stdout:
        lines.append(line)
        if line.strip().startswith("docs"):
            break
    sys.stdout.writelines(lines)
    (curl,) = (line.strip() for line in lines if line.strip().startswith("curl "))
    answer = json.loads(subprocess.run(curl, shell=True, capture_output=True, check=True, timeout=30).stdout)
    print(answer)
    assert answer["predictions"][0]["label"] == 7, answer
finally:
    server.send_signal(signal.SIGTERM)
    status = server.wait(timeout=60)
assert status == 0, status
