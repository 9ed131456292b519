"""The command line in a process that ``torchrun`` starts, after faults: ``CALLS WORD ...``.

CALLS: ``happens.rank_killed:3:1,unguarded.name`` (module, function, whole numbers), or empty.
"""

from __future__ import annotations

import importlib
import sys

if __name__ == "__main__":
    calls = sys.argv.pop(1)
    for call in filter(None, calls.split(",")):
        name, *numbers = call.split(":")
        module, _, function = name.rpartition(".")
        getattr(importlib.import_module(f"helpers.{module}"), function)(*map(int, numbers))
    from glottis.cli.main import main

    main()
