"""A warm process that forks one child for each run, so that a run does not pay for its imports.

Requests are lines of JSON: ``words`` of the command line, ``said`` (a file for both streams),
``before`` (calls ``[module, function, arguments]`` made in the child, before the command line),
``ranks`` (processes of one run, which meet at ``port``).
For each it prints the child's process id and, once that has ended, its wait status.  The child
leads a process group of its own.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from typing import Any, NoReturn


def serve() -> None:
    """Answer requests until stdin ends."""
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            _live(request)
        print(child, flush=True)  # noqa: T201 (this is the protocol)
        print(os.waitpid(child, 0)[1], flush=True)  # noqa: T201


def _live(request: dict[str, Any]) -> NoReturn:
    """The command line as a process of its own would run it; an error that it lets out is shown."""
    said = os.open(request["said"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    if request["ranks"] > 1:
        _join(request["ranks"], request["port"])
    sys.argv = ["glottis", *request["words"]]
    code = 0
    try:
        for module, function, arguments in request["before"]:
            getattr(importlib.import_module(module), function)(*arguments)
        from glottis.cli.main import main

        main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _join(ranks: int, port: int) -> None:
    """Become rank 0 and make the others, as ``torchrun`` would."""
    rank = next((number for number in range(1, ranks) if os.fork() == 0), 0)
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_PORT": port}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", **{k: str(v) for k, v in places.items()}}


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    import torch._dynamo  # the optimisers ask for it

    serve()
