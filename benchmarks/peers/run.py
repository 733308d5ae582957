"""How fast is redserve beside the other inference servers for Python, each at its best, on the same model?

    python benchmarks/peers/run.py --workload small|wide [--connections 64 ...] [--rounds 5] [--only redserve,mosec]
                                   [--rates 2000 8000] [--driver wrk|redserve] [--server-cores 1] [--keep-settings]
                                   [--quick]
                                   needs redserve[dev], and wrk; writes benchmarks/results/peers_<workload>.json

small is a perceptron that costs nothing beside HTTP; wide is one on which batching pays. Each server has an environment
of its own, which is made on first use (`environments.py`), with the same version of ONNX Runtime, the same model file
and the same session options; FastAPI runs in redserve's, whose dependency it is. All have the Python that runs this:
here Debian's, which is built with profile-guided optimisation, like that of the official container images; one that is
built without it, as by pyenv's defaults, takes about 15 % more CPU for a request to redserve. Before each timing 64
different rows are sent at once and every answer is compared with ONNX Runtime's, and again afterwards. Each contestant
first tries its settings (`contestants.py`) and keeps the best. Then they take turns, A B C, C B A, with a fresh server
each time; ratios are taken round by round, between neighbours in time, and are medians over the rounds with the least
and the largest beside them. CPU is that of all processes of a server, by request.

Closed loop: so many connections, the next request when the answer is there, 64 rows in turn. Open loop: Poisson
arrivals by redserve's own sender, latency from the planned time; nobody is asked for more than nine tenths of its own
closed loop. Servers and senders share the machine, unless `--server-cores` gives the servers so many cores of their
own, as where the clients are elsewhere, and the senders those that are left. A load during which other processes kept
more than a quarter of a core busy is repeated, twice at most.

`--keep-settings` takes the settings that the results say were best, where they say so, in place of trying all again.

`--quick` compares redserve with FastAPI for a moment, without tuning, writes nothing, and needs no other environment.
"""

import argparse
import os
import signal
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import drivers
from contestants import CONTESTANTS, Contestant
from environments import interpreter, versions
from kept import choice_kept, keep
from rounds import Extent, take_turns, tune
from workload import Workload

from redserve.bench.environment import environment

RESULTS = Path(__file__).parents[1] / "results"
RATES = {"small": (2000.0, 8000.0), "wide": (200.0, 1000.0)}
QUICK = ("redserve", "fastapi")


def compare(
    contestants: list[Contestant], workload: Workload, extent: Extent, chosen: dict[str, dict[str, Any] | None]
) -> Iterator[dict[str, Any]]:
    """Tune whose setting is not chosen yet, then measure in turns; the run as it is after each round."""
    print(f"\n{workload.name}: {workload.doc}; {extent.connections} connections, closed loop by {extent.driver}")
    tuned = {}
    for contestant in contestants:
        tuned[contestant.name] = chosen[contestant.name] or tune(contestant, workload, extent)
        for tried in tuned[contestant.name]["tried"]:
            print(f"  {contestant.name:<16}{tried['setting']}: {tried['per_s']}")
        print(f"  {contestant.name:<16}takes {tuned[contestant.name]['setting']}", flush=True)
    settings = {name: found["setting"] for name, found in tuned.items()}
    run: dict[str, Any] = {
        "connections": extent.connections,
        **({"server_cores": len(extent.server_cores)} if extent.server_cores else {}),
        "driver": extent.driver,
        "seconds": extent.seconds,
        "machine": environment(),
        "contestants": {
            contestant.name: {
                "doc": contestant.doc,
                "is_ours": contestant.is_ours,
                "versions": versions(interpreter(contestant.name, contestant.packages)),
                **tuned[contestant.name],
            }
            for contestant in contestants
        },
        "rounds": [],
    }
    for found in take_turns(contestants, workload, settings, extent):
        run["rounds"].append(found)
        yield run


def print_summary(run: dict[str, Any]) -> None:
    """Medians, and the ratio to the fastest that is not ours."""
    rounds = run["rounds"]
    per_s = {name: [one[name]["closed"]["per_s"] for one in rounds] for name in run["contestants"]}
    others = [name for name, found in run["contestants"].items() if not found["is_ours"]]
    best = max(others, key=lambda name: statistics.median(per_s[name])) if others else None
    for name, found in per_s.items():
        text = f"  {name:<16}{statistics.median(found):>9,.0f}/s"
        if best is not None:
            ratios = [mine / theirs for mine, theirs in zip(found, per_s[best], strict=True)]
            text += f"   {statistics.median(ratios):.2f} of {best} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(text)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=("small", "wide"), default="small")
    parser.add_argument("--connections", type=int, nargs="+", default=[64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each closed loop (default: 3)")
    parser.add_argument("--only", help=f"some of {','.join(CONTESTANTS)}")
    parser.add_argument("--rates", type=float, nargs="*", help="of the open loops; none: closed loop only")
    parser.add_argument("--driver", choices=("wrk", "redserve"), help="of the closed loop (default: wrk, if there)")
    parser.add_argument("--server-cores", type=int, default=0, help="for the servers alone (default: all are shared)")
    parser.add_argument("--keep-settings", action="store_true", help="those that were best before")
    parser.add_argument("--quick", action="store_true", help="check that it works; write nothing")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers end with it
    names = options.only.split(",") if options.only else list(QUICK if options.quick else CONTESTANTS)
    if unknown := set(names) - set(CONTESTANTS):
        parser.error(f"--only: {', '.join(sorted(unknown))}: choose from {', '.join(CONTESTANTS)}")
    cores = sorted(os.sched_getaffinity(0))
    if not 0 <= options.server_cores < len(cores):
        parser.error(f"--server-cores: some of the {len(cores)} cores are for the senders")
    contestants = [CONTESTANTS[name] for name in names]
    for contestant in contestants:
        interpreter(contestant.name, contestant.packages)
    workload = Workload.of(options.workload)
    os.sched_setaffinity(0, cores[options.server_cores :])
    results = RESULTS / f"peers_{workload.name}.json"
    for connections in options.connections:
        extent = Extent(
            driver=drivers.pick(options.driver),
            connections=connections,
            rounds=1 if options.quick else options.rounds,
            seconds=0.5 if options.quick else options.seconds,
            warm_up_s=0.2 if options.quick else 1.0,
            tuning_s=0 if options.quick else 2.0,
            rates=RATES[options.workload] if options.rates is None else options.rates,
            open_s=0.5 if options.quick else 2.0,
            tries=1 if options.quick else 3,
            server_cores=frozenset(cores[: options.server_cores]) or None,
        )
        chosen = {
            name: choice_kept(results, name, connections, options.server_cores) if options.keep_settings else None
            for name in CONTESTANTS
        }
        about = {"name": workload.name, "model": workload.doc, "body_bytes": len(workload.bodies[0])}
        for run in compare(contestants, workload, extent, chosen):
            run["command"] = f"python benchmarks/peers/run.py {' '.join(sys.argv[1:])}"
            if not options.quick:
                keep(results, run, question=(__doc__ or "").partition("\n")[0], workload=about)
        print_summary(run)


if __name__ == "__main__":
    main()
