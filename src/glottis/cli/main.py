"""``glottis``: the verbs are in files of their own; heavy imports wait until a verb runs.

Exit codes: 0 ok, 1 the check or run failed, 2 the request was wrong (cause and fix, no traceback).
"""

from __future__ import annotations

import importlib
import logging
import sys
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from glottis.errors import ToolkitError
from glottis.version import __version__

# verb -> (module in glottis.cli, one line for the overview); shown in this order
VERBS = {
    "demo": ("demo", "no data needed: synthetic talkers -> pack -> train -> evaluate"),
    "prepare": ("prepare", "a corpus on disk -> a manifest"),
    "pack": ("pack", "decode a corpus once into a store that training reads fast"),
    "train": ("train", "train a recipe; kill it at any moment and --resume"),
    "evaluate": ("evaluate", "EER and costs with intervals on trials or a protocol"),
    "score-metrics": ("score_metrics", "the same from score files of any toolkit"),
    "embed": ("embed", "audio files -> embeddings"),
    "verify": ("verify", "do two files hold the same voice?"),
    "detect": ("detect", "is it a live human or a deepfake?"),
    "models": ("listing", "networks that can be trained"),
    "losses": ("listing", "loss heads"),
    "corpora": ("listing", "corpora that prepare reads"),
    "recipes": ("listing", "recipes that come with Glottis"),
    "runs": ("runs", "table of the runs in a folder"),
    "inspect": ("inspect", "what a checkpoint holds"),
    "profile": ("profile", "where the time of a training step goes"),
    "import-weights": ("import_weights", "official checkpoints -> ours"),
}


class Verbs(TyperGroup):
    """Loads the file of a verb when it is called; the overview needs none of them."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in VERBS:
            return None
        module, _ = VERBS[cmd_name]
        app = importlib.import_module(f"glottis.cli.{module}").app
        command: Any = typer.main.get_command(app)
        if hasattr(command, "commands"):  # a file with several verbs
            command = command.commands[cmd_name]
        command.name = cmd_name
        return command

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write_usage("glottis", "VERB [OPTIONS] ...")
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(
                "Train, check and measure voice-biometric models: speaker verification and "
                "spoofing countermeasures."
            )
        with formatter.section("Verbs"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])
        with formatter.section("Options"):
            formatter.write_dl(
                [("--version", "print the version"), ("VERB --help", "options and an example")]
            )


app = typer.Typer(
    cls=Verbs,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def top(
    ctx: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version."),
) -> None:
    """Voice biometrics: train, check, measure."""
    if version:
        typer.echo(f"glottis {__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def _resume_with_value(arguments: list[str]) -> list[str]:
    """``--resume`` may stand alone; the option parser wants a value: ``newest``."""
    result = []
    for index, word in enumerate(arguments):
        result.append(word)
        following = arguments[index + 1] if index + 1 < len(arguments) else ""
        if word == "--resume" and not (Path(following) / "state.pt").is_file():
            if "step-" in following or following.startswith("checkpoints"):
                continue  # meant as a checkpoint: the verb says what is wrong with it
            result.append("newest")
    return result


def main() -> None:
    """Entry point: runs a verb and turns our errors into two lines and an exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("glottis").setLevel(logging.INFO)
    for noisy in ("matplotlib", "PIL", "libav"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        app(_resume_with_value(sys.argv[1:]))
    except ToolkitError as error:
        typer.echo(f"glottis: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("glottis: interrupted; what was saved is intact", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)


if __name__ == "__main__":
    main()
