"""How long ``glottis --help`` and ``import glottis`` take, as whole processes.

Prints JSON: seconds (median, min, max).  The promise is a help text in less than 0.4 s.

Run: .venv/bin/python benchmarks/bench_start.py [--rounds 15]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "glottis --help": [sys.executable, "-m", "glottis", "--help"],
    "import glottis": [sys.executable, "-c", "import glottis"],
    "python alone": [sys.executable, "-c", "pass"],
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(rounds + 1):
        for name, command in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if turn:
                seconds[name].append(time.perf_counter() - began)
    print(
        json.dumps(
            {
                "benchmark": "start-up, whole processes",
                "seconds": {
                    name: {
                        "median": round(statistics.median(values), 3),
                        "min": round(min(values), 3),
                        "max": round(max(values), 3),
                    }
                    for name, values in seconds.items()
                },
                "rounds": rounds,
                "date": time.strftime("%Y-%m-%d"),
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
