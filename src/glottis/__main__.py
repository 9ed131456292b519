"""``python -m glottis`` is ``glottis`` (torchrun starts modules)."""

from glottis.cli.main import main

main()
