"""One small registry, used by models, losses, corpora, augmentations and features.

A component is one file with one decorator::

    @register_model("tdnn", TdnnConfig)
    class Tdnn(nn.Module): ...

The files of a room are imported on the first look-up, so that importing Glottis stays fast.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from glottis.config import Config, build, named_type
from glottis.errors import ConfigError
from glottis.problems import nearest

T = TypeVar("T")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """What the registry knows about a name."""

    name: str
    target: T
    config: type[Config]
    module: str

    @property
    def summary(self) -> str:
        """The first line of the target's own docstring."""
        text = inspect.getdoc(self.target) or ""
        return text.splitlines()[0] if text else ""


class Registry(Generic[T]):
    """Names of one kind of component, found in the modules of one package.

    kind: the word for messages ("model").
    package: where the files are ("glottis.models"); modules whose name starts with an underscore
    are not components.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self.package = kind, package
        self._entries: dict[str, Entry[T]] = {}
        self._discovered = False

    def register(self, name: str, config: type[Config]) -> Callable[[T], T]:
        """Decorator: make ``target`` known as ``name`` with the options of ``config``."""

        def keep(target: T) -> T:
            if name in self._entries:
                first = self._entries[name].module
                raise ConfigError(
                    f"{self.kind} '{name}' is registered twice: in {first} and in "
                    f"{getattr(target, '__module__', '?')}",
                    fix="give one of them another name",
                )
            module = str(getattr(target, "__module__", "?"))
            self._entries[name] = Entry(name, target, config, module)
            return target

        return keep

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self._discover()
        return sorted(self._entries)

    def __getitem__(self, name: str) -> Entry[T]:
        self._discover()
        if name not in self._entries:
            close = nearest(name, list(self._entries), 3)
            hint = f"did you mean {' or '.join(close)}? " if close else ""
            raise ConfigError(
                f"there is no {self.kind} called '{name}'",
                fix=f"{hint}known: {', '.join(sorted(self._entries))}",
                rule="C1",
            )
        return self._entries[name]

    def config(self, name: str, **options: Any) -> Config:
        """The checked config of the component ``name`` with these options (as in a recipe)."""
        entry = self[name]
        tree = {"name": name, **options}
        return build(named_type(name, entry.config), tree, f"{self.kind} {name}")

    def entry_of(self, config: Config) -> Entry[T]:
        """The entry that a config made by `config` or by a recipe belongs to."""
        return self[config.name]  # type: ignore[attr-defined, no-any-return]

    def __iter__(self) -> Iterator[Entry[T]]:
        return iter([self[name] for name in self.names()])

    def __contains__(self, name: object) -> bool:
        self._discover()
        return name in self._entries

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True  # first: the modules below may ask for names themselves
        try:
            package: Any = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(getattr(package, "__path__", [])):
                if not module.name.startswith("_") and not module.ispkg:
                    importlib.import_module(f"{self.package}.{module.name}")
        except BaseException:
            self._discovered = False  # who asks next meets the same error
            raise
