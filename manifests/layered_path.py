"""A working copy of a run in an object store: what was written in it lies in a layer of its own, all else is the run's.

The copy of RUN is RUN/HOLDER/new: NAME in it is RUN/HOLDER/new/NAME where there is such an object, else RUN/NAME,
unless the copy leaves it out. So nothing is copied to begin with, and no object of the run is touched. A copy that
several processes work in keeps beside it what they must know: RUN/HOLDER/layer.json, which folders it leaves out, and
an empty object RUN/HOLDER/gone/NAME for each file that it has no more.
"""

import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from manifests.remote_path import Changes, RemotePath
from manifests.store_requests import Facts

T = TypeVar("T")
REMOVING = ".removal"
REPAIRING = ".tmp-repair-"
"""How the folders are called, or their names begin, that hold a layer."""
NEW, GONE, NOTE = "new", "gone", "layer.json"
_LAYERS: "dict[str, Layer]" = {}


@dataclass
class Layer:
    """What a process knows of a working copy. `folders`, at the top, and names with these `prefixes`, anywhere, are
    left out of it; so is what is `gone`. `written`: its own files, None where other processes write there too."""

    holder: RemotePath
    folders: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    gone: set[str] = field(default_factory=set)
    written: set[str] | None = None
    above: set[str] = field(default_factory=set)
    """Folders of the written files."""

    def hides(self, name: str) -> bool:
        """Tell whether the copy has no such file of the run."""
        parts = name.split("/")
        return name in self.gone or parts[0] in self.folders or any(part.startswith(self.prefixes) for part in parts)

    def may_hold(self, name: str) -> bool:
        """Tell whether something of this name may have been written in the copy, or below it."""
        return self.written is None or name in self.written or name in self.above

    def wrote(self, name: str) -> None:
        """Note a file that was written in the copy."""
        if self.written is not None:
            self.written.add(name)
            self.above.update(folder.as_posix() for folder in PurePosixPath(name).parents)

    def hide(self, name: str) -> None:
        """Leave a file of the run out from now on."""
        self.gone.add(name)
        if self.written is None:
            (self.holder / GONE / name).write_bytes(b"")

    def show(self, name: str) -> None:
        """Leave a file of the run out no more."""
        self.gone.discard(name)
        if self.written is None:
            (self.holder / GONE / name).unlink(missing_ok=True)


def layered(path: RemotePath) -> RemotePath:
    """Return the path of a working copy where its name is that of one, else the path itself."""
    return LayeredPath(*path.parts) if _place(path.parts) else path


def make_layer(
    root: RemotePath, holder: str, folders: Iterable[str], prefixes: Iterable[str], shared: Collection[str] | None
) -> "LayeredPath":
    """Return a new working copy of the run at `root`, its layer in the folder `holder` of the run.

    `shared`: the files that it lacks, where other processes work in it; None where only this one does.
    """
    place = RemotePath(*root.parts, holder)
    written: set[str] | None = None if shared is not None else set()
    layer = Layer(place, frozenset([holder, *folders]), tuple(prefixes), set(), written)
    _LAYERS[str(place)] = layer
    if shared is not None:
        note = {"folders": sorted(layer.folders), "prefixes": list(layer.prefixes)}
        (place / NOTE).write_bytes(json.dumps(note).encode())
        for name in shared:
            layer.hide(name)
    return LayeredPath(*place.parts, NEW)


def _place(parts: tuple[str, ...]) -> int:
    """Return where in a path the folder is that holds a layer, 0 for a path that is in none."""
    for place, name in enumerate(parts[1:-1], 1):
        if (name == REMOVING or name.startswith(REPAIRING)) and parts[place + 1] == NEW:
            return place
    return 0


def _layer(holder: RemotePath) -> Layer:
    """Return the layer in a folder of a run, as this process made it or another one noted it."""
    if str(holder) not in _LAYERS:
        try:
            note = json.loads((holder / NOTE).read_bytes())
        except FileNotFoundError:
            note = {"folders": [holder.name], "prefixes": []}
        start = len((holder / GONE).parts)
        gone = {"/".join(path.parts[start:]) for path, _ in (holder / GONE).walk_files()}
        _LAYERS[str(holder)] = Layer(holder, frozenset(note["folders"]), tuple(note["prefixes"]), gone)
    return _LAYERS[str(holder)]


class LayeredPath(RemotePath):
    """A place in a working copy. Its key is that of its own layer: what RemotePath changes is changed there."""

    __slots__ = ()

    def _split(self) -> tuple[Layer, str]:
        """Return the layer, and this path's name in the copy."""
        place = _place(self.parts)
        assert place, self
        return _layer(RemotePath(*self.parts[: place + 1])), "/".join(self.parts[place + 2 :])

    @property
    def own(self) -> RemotePath:
        """Return the object of the layer."""
        return RemotePath(*self.parts)

    @property
    def beneath(self) -> RemotePath:
        """Return the object of the run."""
        place = _place(self.parts)
        return RemotePath(*self.parts[:place], *self.parts[place + 2 :])

    @property
    def parent(self) -> Any:
        """Return the folder; that of the copy itself is none of its folders."""
        return layered(RemotePath(*self.parts[:-1]))

    def _ask(self, question: Callable[[RemotePath], T]) -> T:
        """Return the layer's answer, or the run's where the layer has no such object. Raises FileNotFoundError."""
        layer, name = self._split()
        if layer.may_hold(name):
            try:
                return question(self.own)
            except FileNotFoundError:
                pass
        if layer.hides(name):
            raise FileNotFoundError(2, "No such file or directory", str(self))
        return question(self.beneath)

    def stat(self, *, follow_symlinks: bool = True) -> Any:
        """Return size, time of change and tag. Raises FileNotFoundError."""
        return self._ask(lambda path: path.stat())

    def open(self, mode: str = "r", *args: Any, **options: Any) -> Any:
        """Open to read."""
        return self._ask(lambda path: path.open(mode, *args, **options))

    def read_bytes(self) -> bytes:
        """Return the bytes of the object."""
        return self._ask(lambda path: path.read_bytes())

    def listed(self) -> list[Any]:
        """Return (path, facts) of what lies directly below, in the layer or in the run."""
        return self._both(lambda path: path.listed())

    def walk_files(self) -> list[Any]:
        """Return (path, facts) of every object below."""
        return self._both(lambda path: path.walk_files())

    def _both(self, found: Callable[[RemotePath], list[tuple[RemotePath, Facts]]]) -> list[tuple[Any, Facts]]:
        layer, name = self._split()
        start = f"{name}/" if name else ""
        there: dict[str, Facts] = {}
        if not name or not layer.hides(name):
            below = found(self.beneath)
            cut = len(self.beneath.parts)
            names = ["/".join(path.parts[cut:]) for path, _ in below]
            there = {
                one: facts for one, (_, facts) in zip(names, below, strict=True) if not layer.hides(f"{start}{one}")
            }
        if layer.may_hold(name or "."):
            cut = len(self.parts)
            there |= {"/".join(path.parts[cut:]): facts for path, facts in found(self.own)}
        return [(self / one, there[one]) for one in sorted(there)]

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object from the copy. Raises FileNotFoundError where there is none, unless that may be."""
        if not missing_ok:
            self.stat()
        layer, name = self._split()
        if layer.may_hold(name):
            self.own.unlink(missing_ok=True)
            if layer.written is not None:
                layer.written.discard(name)
        if not layer.hides(name):
            layer.hide(name)
            Changes.count += 1

    def drop(self) -> None:
        """Delete every object below from the copy."""
        for path, _ in self.walk_files():
            path.unlink(missing_ok=True)

    def create(self, data: bytes) -> bool:
        """Upload bytes where the copy has no such object; return False where there is one."""
        return not self.exists() and super().create(data)

    def copy_to(self, target: RemotePath) -> None:
        """Copy within the store, from where this object lies."""
        layer, name = self._split()
        mine = name in layer.written if layer.written is not None else self.own.is_file()
        (self.own if mine else self.beneath).copy_to(target)

    def _changed(self) -> None:
        super()._changed()
        layer, name = self._split()
        layer.wrote(name)


def uncover(path: Path) -> None:
    """Let a file of a working copy be what the run has."""
    assert isinstance(path, LayeredPath), path
    layer, name = path._split()
    path.own.unlink(missing_ok=True)
    if layer.written is not None:
        layer.written.discard(name)
    layer.show(name)


def layer_names(copy: Path) -> tuple[list[str], list[str]]:
    """Return the files that were written in a working copy, and those of the run that it has no more, by name."""
    assert isinstance(copy, LayeredPath), copy
    layer, _ = copy._split()
    start = len(copy.parts)
    written = {"/".join(path.parts[start:]) for path, _ in copy.own.walk_files()}
    return sorted(written), sorted(layer.gone - written)
