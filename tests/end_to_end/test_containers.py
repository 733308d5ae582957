"""`examples/Containerfile` and `examples/kubernetes.yaml`, as far as that can be told without an engine that builds."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import tomllib

import httpx2
import pytest
import yaml
from tools import REPOSITORY

from redserve import demo
from redserve.server.auth import PROBES
from redserve.server.runner import LAST_ANSWERS_S

LIMIT_S = 60.0
KILLED_AFTER_S = 30
"""From SIGTERM, by SageMaker, and by Kubernetes where nothing else is said."""

DIGIT = {"instances": [demo.samples()[5]["pixels"]]}


class Stage:
    """The instructions of the last stage of a Containerfile, and the files that all stages copy."""

    def __init__(self, text):
        text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
        self.instructions = [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]
        self.arguments = dict(rest.split("=", 1) for name, rest in self.instructions if name == "ARG")
        self.copied = [
            source
            for name, rest in self.instructions
            if name == "COPY" and "--from" not in rest
            for source in rest.split()[:-1]
        ]
        first = max(number for number, (name, _) in enumerate(self.instructions) if name == "FROM")
        self._last = dict(self.instructions[first:])
        self.environment = dict(pair.split("=", 1) for pair in shlex.split(self._last["ENV"]))
        self.user = self._last["USER"].replace("${USER}", self.arguments["USER"])

    def command(self, name):
        """What an instruction in exec form runs."""
        return json.loads(self._last[name].rpartition("CMD ")[2] if name == "HEALTHCHECK" else self._last[name])


@pytest.fixture(scope="module")
def stage():
    return Stage((REPOSITORY / "examples" / "Containerfile").read_text())


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


def test_it_copies_what_the_package_is_built_from(stage, project):
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = [
        "pyproject.toml",
        "hatch_build.py",
        project["project"]["readme"],
        *project["project"]["license-files"],
        *packages,
    ]

    assert all((REPOSITORY / path).exists() for path in stage.copied)
    assert all(path.partition("/")[0] in stage.copied for path in needed)


def test_it_installs_the_server_for_either_device(stage, project):
    *_, install = [rest for name, rest in stage.instructions if name == "RUN"]

    assert install.endswith('pip install --no-cache-dir ".[server,${DEVICE}]"')
    assert stage.arguments["DEVICE"] == "cpu"
    assert {"server", "cpu", "gpu"} <= project["project"]["optional-dependencies"].keys()


def test_it_does_not_run_as_root(stage):
    user, group = stage.user.split(":")

    assert int(user) > 0
    assert int(group) > 0


def test_sagemaker_can_start_it(stage):
    """`docker run IMAGE serve`, an entry point in exec form, the label for another port; over before the SIGKILL."""
    assert [*stage.command("ENTRYPOINT"), "serve"] == [*stage.command("ENTRYPOINT"), *stage.command("CMD")]
    assert ("LABEL", "com.amazonaws.sagemaker.capabilities.accept-bind-to-port=true") in stage.instructions
    drain_s, grace_s = (float(stage.environment[f"REDSERVE_{name}"]) for name in ("DRAIN_DELAY_S", "GRACE_S"))
    assert drain_s > 0
    assert drain_s + grace_s + LAST_ANSWERS_S < KILLED_AFTER_S


def test_its_command_serves_on_all_addresses_and_drains_with_a_delay(stage):
    with socket.socket() as free:
        free.bind(("0.0.0.0", 0))
        port = free.getsockname()[1]
    bin_folder = str(os.path.dirname(sys.executable))
    environment = stage.environment | {"PATH": f"{bin_folder}:/usr/bin:/bin", "REDSERVE_PORT": str(port)}

    def is_healthy():
        check = stage.command("HEALTHCHECK")
        return subprocess.run(check, env=environment, stderr=subprocess.DEVNULL, timeout=LIMIT_S, check=False)

    def is_ready():
        return httpx2.get(f"http://127.0.0.2:{port}/readyz").status_code == 200

    server = subprocess.Popen(
        [*stage.command("ENTRYPOINT"), *stage.command("CMD")],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: server.poll() is not None or is_healthy().returncode == 0)
        assert server.poll() is None, server.stderr.read()
        assert is_ready()
        server.send_signal(signal.SIGTERM)
        until(lambda: not is_ready())
        late = httpx2.post(f"http://127.0.0.2:{port}/predict", json=DIGIT)
        assert is_healthy().returncode == 1
        _, errors = server.communicate(timeout=LIMIT_S)
    finally:
        server.kill()
        server.communicate()
    assert late.json()["predictions"][0]["label"] == 5
    assert server.returncode == 0, errors


def until(condition):
    deadline_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline_s, "it never happened"
        time.sleep(0.05)


def test_kubernetes_probes_it_and_waits_for_its_end(stage):
    pod = yaml.safe_load((REPOSITORY / "examples" / "kubernetes.yaml").read_text())["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    drain_s, grace_s = (float(environment[f"REDSERVE_{name}"]) for name in ("DRAIN_DELAY_S", "GRACE_S"))

    assert {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("liveness", "readiness")} <= set(PROBES)
    assert container["livenessProbe"]["httpGet"]["path"] != container["readinessProbe"]["httpGet"]["path"]
    assert drain_s > container["readinessProbe"]["periodSeconds"]
    assert pod["terminationGracePeriodSeconds"] > drain_s + grace_s + LAST_ANSWERS_S
    assert ("EXPOSE", str(container["ports"][0]["containerPort"])) in stage.instructions
