"""Load the Python files that a recipe names into a register of things, and blame their errors on the right line."""

import hashlib
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.recipes.schema import RecipeError


@dataclass(frozen=True)
class UserFile:
    """A file of the user's that is loaded: its path, the sha256 of what was run, the module it became, and the names
    that it registered."""

    path: Path
    sha256: str
    module: str
    names: frozenset[str]


class UserFiles:
    """The loaded files of one key of the recipe. `register`: what they enter themselves into, name -> thing; `check`
    looks at what one file entered, (file, {name: thing}), and may change it. Raises RecipeError."""

    def __init__(self, key: str, register: dict[str, Any], check: Callable[[UserFile, dict[str, Any]], None]) -> None:
        self.key, self.register, self.check = key, register, check
        self._loaded: dict[Path, UserFile] = {}

    def load(self, named: str | Sequence[str]) -> None:
        """Make what these files register known, and what other files did unknown. A file whose content has not changed
        is not run again. Raises RecipeError with file and line."""
        paths = [Path(path).absolute() for path in ([named] if isinstance(named, str) else named)]
        for path in set(self._loaded) - set(paths):
            self._unload(path)
        for path in dict.fromkeys(paths):
            self._load(path)

    def behind(self, names: set[str]) -> list[tuple[str, str]]:
        """Return (name, sha256) of the loaded files that registered any of these names, sorted."""
        return sorted((file.path.name, file.sha256) for file in self._loaded.values() if file.names & names)

    def _unload(self, path: Path) -> None:
        file = self._loaded.pop(path, None)
        if file is not None:
            for name in file.names:
                self.register.pop(name, None)
            sys.modules.pop(file.module, None)

    def _load(self, path: Path) -> None:
        try:
            source = path.read_bytes()
        except OSError as error:
            raise RecipeError(
                f"recipe: {self.key}: cannot read {str(path)!r} ({error.strerror}); give Python files beside the recipe"
                " or in this folder"
            ) from error
        sha256 = hashlib.sha256(source).hexdigest()
        if path in self._loaded and self._loaded[path].sha256 == sha256:
            return
        self._unload(path)
        number = hashlib.sha256(str(path).encode()).hexdigest()[:12]
        module = ModuleType(f"user_{self.key.partition('.')[0]}_{number}", f"Read from {path}.")
        module.__file__ = str(path)
        before = dict(self.register)
        sys.modules[module.__name__] = module  # dataclasses look their own module up
        with Blame(path, f"recipe: {self.key}", (RecipeError, KeyboardInterrupt)), ExitStack() as undo:
            undo.callback(self._restore, before, module.__name__)
            exec(compile(source, str(path), "exec"), module.__dict__)
            made = {name: found for name, found in self.register.items() if before.get(name) is not found}
            file = UserFile(path, sha256, module.__name__, frozenset(made))
            self.check(file, made)
            undo.pop_all()  # it went well: nothing is undone
        self._loaded[path] = file

    def _restore(self, before: dict[str, Any], module: str) -> None:
        self.register.clear()
        self.register.update(before)
        del sys.modules[module]


@dataclass(frozen=True)
class Blame:
    """Whatever a user's code raises becomes an error that names the file and the line; `passing` is left alone."""

    path: Path
    what: str
    passing: tuple[type[BaseException], ...]
    raised: type[Exception] = RecipeError

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Raise `raised` from the error."""
        if error is not None and not isinstance(error, self.passing):
            raise self.raised(f"{self.what}: {_place(self.path, error)}: {_words(error)}") from error


def _place(path: Path, error: BaseException) -> str:
    """Return `FILE, line N`: the last line of the user's file that the error came through."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path}, line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"
