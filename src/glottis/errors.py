"""Every error a user can meet.

    ToolkitError
    |-- ConfigError        a recipe, an override or an argument is wrong
    |-- DataError          a manifest, a list or a corpus is wrong
    |-- AudioError         one audio file cannot be used
    |-- ModelError         a model, a checkpoint or a set of weights is wrong
    |-- TrainingStopped    a run stopped itself; what it had saved is intact
    |-- ResultError        a number would not mean anything
    `-- MissingExtra       an optional dependency is not installed

A message has up to three lines: what was seen, why it matters, how to fix it.  The command line
prints it without a traceback; the exit code is 2 for a wrong request and 1 for a run that failed.
"""

from __future__ import annotations


class ToolkitError(Exception):
    """Base of all errors that Glottis raises on purpose.

    seen: what was found, with numbers and names.
    why: why it matters, one line.
    fix: what to change, with the exact key or command.
    rule: code in the catalogue of mistakes (``P1``, ``O4`` ...), if there is one.
    """

    exit_code = 2

    def __init__(self, seen: str, *, why: str = "", fix: str = "", rule: str = "") -> None:
        self.seen, self.why, self.fix, self.rule = seen, why, fix, rule
        super().__init__(str(self))

    def __str__(self) -> str:
        head = f"[{self.rule}] {self.seen}" if self.rule else self.seen
        lines = [head]
        if self.why:
            lines.append(f"why: {self.why}")
        if self.fix:
            lines.append(f"fix: {self.fix}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        """Errors cross process borders (data workers), keyword arguments included."""
        return (_rebuild, (type(self), self.seen, self.why, self.fix, self.rule))


def _rebuild(kind: type[ToolkitError], seen: str, why: str, fix: str, rule: str) -> ToolkitError:
    return kind(seen, why=why, fix=fix, rule=rule)


class ConfigError(ToolkitError):
    """A recipe, an override or an argument is wrong: ``optim.lrr=1`` (did you mean ``lr``?)."""


class DataError(ToolkitError):
    """A manifest, a list or a corpus is wrong: a missing file, an unknown label."""


class AudioError(ToolkitError):
    """One audio file cannot be used: empty, not audio, not finite."""


class ModelError(ToolkitError):
    """A model, a checkpoint or a set of weights is wrong: tensors missing, a newer file."""


class TrainingStopped(ToolkitError):
    """A run stopped itself: too many broken files, too many non-finite steps, disk full."""

    exit_code = 1


class ResultError(ToolkitError):
    """A number would not mean anything: scores missing, one class only, no finite score."""

    exit_code = 1


class MissingExtra(ToolkitError):
    """An optional dependency is not installed; the message holds the install line.

    extra: what to install, as in ``glottis[extra]``.
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.extra = extra
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed",
            fix=f"pip install 'glottis[{extra}]' -c constraints.txt",
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (ToolkitError, self.seen, self.why, self.fix, self.rule))
