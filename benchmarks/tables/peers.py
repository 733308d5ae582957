"""Ours beside the peers: rates, ratios round by round, latencies, CPU; what each was set to."""

import statistics
from typing import Any

from tables.markdown import Document, ratio_text, show, table

QUIET_CORES = 0.25


def lines(document: Document) -> list[str]:
    """A part for each run: so many connections, these contestants."""
    workload = document["workload"]
    found = [f"Model: {workload['model']}; a request body has {workload['body_bytes']:,} bytes.", ""]
    for run in document["runs"]:
        found += run_lines(run)
    return found


def run_lines(run: Document) -> list[str]:
    """One run."""
    names, rounds = list(run["contestants"]), run["rounds"]
    per_s = {name: [one[name]["closed"]["per_s"] for one in rounds] for name in names}
    others = [name for name in names if not run["contestants"][name]["is_ours"]]
    best = max(others, key=lambda name: statistics.median(per_s[name])) if others else names[0]
    neighbours = [one[name]["closed"]["neighbours_cores"] for one in rounds for name in names]
    quiet = sum(cores <= QUIET_CORES for cores in neighbours)
    connections, cores = run["connections"], run.get("server_cores", 0)
    where = f", the servers on {cores} core{'s' * (cores > 1)} of their own" * bool(cores)
    return [
        f"**{connections} connection{'s' * (connections > 1)}{where}**, {len(rounds)} rounds.",
        f"Closed loop of {run['seconds']:g} s by {run['driver']}; in {quiet} of {len(neighbours)} other processes took",
        f"less than {QUIET_CORES} cores. Medians; ratios to {best}, round by round, with least and largest:",
        "",
        *table(
            [
                "",
                "requests/s",
                f"of {best}",
                "p50 ms",
                "p99 ms",
                f"p99 of {best}",
                "CPU us a request",
                "of it",
                "start s",
            ],
            (row(name, best, rounds) for name in names),
        ),
        *open_lines(names, best, rounds),
        *setting_lines(run),
    ]


def row(name: str, best: str, rounds: list[Document]) -> list[Any]:
    """One contestant in a closed loop."""

    def values(key: str, who: str = name) -> list[float]:
        return [one[who]["closed"][key] for one in rounds]

    def ratio(key: str) -> str:
        return ratio_text([mine / theirs for mine, theirs in zip(values(key), values(key, best), strict=True)])

    middle = statistics.median
    return [
        name,
        middle(values("per_s")),
        ratio("per_s"),
        middle(values("p50_ms")),
        middle(values("p99_ms")),
        ratio("p99_ms"),
        middle(values("cpu_us_per_request")),
        ratio("cpu_us_per_request"),
        middle(one[name]["start_s"] for one in rounds),
    ]


def open_lines(names: list[str], best: str, rounds: list[Document]) -> list[str]:
    """The open loops: latency at a rate."""
    count = len(rounds[0][best]["open"])
    if not count:
        return []
    rows = []
    for nth in range(count):
        for name in names:
            loops = [one[name]["open"][nth] for one in rounds]
            asked = [loop for loop in loops if not loop.get("is_beyond")]
            rate = loops[0]["rate_per_s"]
            if not asked:
                rows.append([rate, name, "more than it can do", "-", "-", "-", "-"])
                continue
            kept = sum(loop["kept_rate"] for loop in asked)
            p50, p99, cpu = (
                statistics.median(loop[key] for loop in asked) for key in ("p50_ms", "p99_ms", "cpu_us_per_request")
            )
            failed = sum(sum(loop["failures"].values()) for loop in asked)
            rows.append([rate, name, f"{kept} of {len(asked)}", failed, p50, p99, cpu])
    return [
        "Open loop, Poisson arrivals, latency from the planned time. `kept` counts the rounds in which the sender was",
        "on time by its own account (its delay is in the latencies), `failed` the requests without 200:",
        "",
        *table(["requests/s", "", "kept", "failed", "p50 ms", "p99 ms", "CPU us a request"], rows),
    ]


def setting_lines(run: Document) -> list[str]:
    """What each was set to, and what the others of its settings reached."""
    found = ["Settings, and requests/s of each that was tried (twice):", ""]
    packages: dict[str, list[str]] = {}
    for name, contestant in run["contestants"].items():
        versions = ", ".join(f"{key} {value}" for key, value in contestant["versions"].items())
        packages.setdefault(versions, []).append(name)
        found.append(f"- {name}: {contestant['doc']}. Takes {setting_text(contestant['setting'])}")
        for tried in contestant["tried"]:
            reached = ", ".join(show(float(per_s)) for per_s in tried["per_s"])
            found.append(f"  - {setting_text(tried['setting'])}: {reached}")
    found += ["", "Packages:", "", *(f"- {', '.join(names)}: {versions}" for versions, names in packages.items())]
    return [*found, "", f"Made by `{run['command']}`.", ""]


def setting_text(setting: dict[str, Any]) -> str:
    """`workers=2, max_batch_size=32`."""
    return ", ".join(f"{key}={value}" for key, value in setting.items()) or "its defaults"
