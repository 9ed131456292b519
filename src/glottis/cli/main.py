"""``glottis``: the verbs are in files of their own; heavy imports wait until a verb runs.

Exit codes: 0 ok, 1 the check or run failed, 2 the request was wrong (cause and fix, no traceback).
"""

from __future__ import annotations

import difflib
import importlib
import io
import logging
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from glottis.errors import ConfigError, ToolkitError
from glottis.version import __version__

# verb -> (module in glottis.cli, one line for the overview); shown in this order
VERBS = {
    "demo": ("demo", "no data needed: synthetic talkers, both models, results"),
    "prepare": ("prepare", "a corpus on disk -> a manifest"),
    "pack": ("pack", "decode a corpus once into a store that training reads fast"),
    "train": ("train", "train a recipe; kill it at any moment and --resume"),
    "evaluate": ("evaluate", "EER and costs with intervals on trials or a protocol"),
    "score-metrics": ("score_metrics", "the same from score files of any toolkit"),
    "embed": ("embed", "audio files -> embeddings"),
    "verify": ("verify", "do two files hold the same voice?"),
    "identify": ("identify", "whose voice is it, of those in a file of embeddings?"),
    "detect": ("detect", "is it a live human or a deepfake?"),
    "models": ("listing", "networks that can be trained"),
    "losses": ("listing", "loss heads"),
    "corpora": ("listing", "corpora that prepare reads"),
    "recipes": ("listing", "recipes that come with Glottis"),
    "runs": ("runs", "table of the runs in a folder"),
    "inspect": ("inspect", "what a checkpoint holds"),
    "replay": ("replay", "a training step that was not finite, once more"),
    "profile": ("profile", "where the time of a training step goes"),
    "import-weights": ("import_weights", "official checkpoints -> ours"),
}


WRONG_PATH = (
    *(FileNotFoundError, FileExistsError, PermissionError),
    *(IsADirectoryError, NotADirectoryError),
)


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

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if name not in VERBS and not name.startswith("-"):
            close = difflib.get_close_matches(name, VERBS, n=1)
            hint = f"did you mean '{close[0]}'? " if close else ""
            raise ConfigError(
                f"there is no verb '{name}'", fix=f"{hint}'glottis --help' lists them"
            )
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # before typer's own handler, which says nothing
            typer.echo("glottis: interrupted; what was saved is intact", err=True)
            raise typer.Exit(130) from None

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
    subcommand_metavar="VERB ...",
    add_completion=False,
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


def main() -> None:
    """Entry point: runs a verb and turns our errors into two lines and an exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("glottis").setLevel(logging.INFO)
    for noisy in ("matplotlib", "PIL", "libav"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files need not be text
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="glottis")
    except ToolkitError as error:
        typer.echo(f"glottis: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:  # a path that is not what it should be, a full disk
        name = f"{error.filename}: " if error.filename else ""
        typer.echo(f"glottis: {name}{error.strerror or error}", err=True)
        sys.exit(2 if isinstance(error, WRONG_PATH) else 1)


if __name__ == "__main__":
    main()
