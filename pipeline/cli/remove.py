"""The command that takes rows out of a run: `pipeline remove`."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.errors import Words, exit_codes, fail
from pipeline.cli.options import OtherRecipeOption, RunArgument, run_folder
from pipeline.cli.output import JsonOption, note, put, result

if TYPE_CHECKING:
    from pipeline.maintenance.remove.run import Outcome
    from pipeline.maintenance.remove.selectors import Selector

Many = list[str] | None
AGAIN = "then run the same command again"
WORDS = Words(
    "go on with the same command",
    damaged=f"pipeline verify names what is damaged, pipeline repair mends it; {AGAIN}",
    disk=f"mend that; {AGAIN}",
)


@exit_codes(WORDS)
def remove(
    folder: RunArgument,
    url: Annotated[
        Many, typer.Option("--url", metavar="URL", help="Rows of this URL; http and https are one. Repeatable.")
    ] = None,
    host: Annotated[
        Many, typer.Option("--host", metavar="HOST", help="Rows of this host and of those below it. Repeatable.")
    ] = None,
    uid: Annotated[
        Many, typer.Option("--uid", metavar="UID", help="The row with this uid, 32 hex digits. Repeatable.")
    ] = None,
    sha256: Annotated[
        Many,
        typer.Option(
            "--sha256", metavar="HEX", help="Rows whose stored JPEG has this sha256, 64 hex digits. Repeatable."
        ),
    ] = None,
    phash: Annotated[
        Many,
        typer.Option("--phash", metavar="HEX", help="Rows whose picture has this pHash, 16 hex digits. Repeatable."),
    ] = None,
    md5: Annotated[
        Many, typer.Option("--md5", metavar="HEX", help="Rows whose file had this MD5 when it came. Repeatable.")
    ] = None,
    sha1: Annotated[
        Many, typer.Option("--sha1", metavar="HEX", help="Rows whose file had this SHA-1 when it came. Repeatable.")
    ] = None,
    source_sha256: Annotated[
        Many,
        typer.Option(
            "--source-sha256", metavar="HEX", help="Rows whose file had this SHA-256 when it came. Repeatable."
        ),
    ] = None,
    pdq: Annotated[
        Many, typer.Option("--pdq", metavar="HEX", help="Rows whose picture has this PDQ hash. Repeatable.")
    ] = None,
    lists: Annotated[
        Many,
        typer.Option(
            "--list", metavar="FILE", help="What a CSV, TSV, Parquet or text file names, one kind a file. Repeatable."
        ),
    ] = None,
    radius: Annotated[
        int,
        typer.Option(
            "--radius",
            metavar="BITS",
            min=0,
            max=63,
            help="PDQ hashes within so many bits are meant too.",
        ),
    ] = 0,
    promote: Annotated[
        bool,
        typer.Option(
            "--promote-duplicates", help="Let near duplicates of a removed row take its place; else they stay dropped."
        ),
    ] = False,
    recipe: OtherRecipeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take rows out of every file of a run, for good: tombstones keep them from coming back with later input.

    Only files that hold the rows are written anew; all new files are whole before the first old one goes, and a removal
    that was killed is finished by the same command. Checkpoints in train/ cannot unlearn: they are named.

    Exit codes: 0 done, or removed before; 1 a file of the run is damaged (repair it first); 2 no selector, a bad one,
    no run folder, or one that another run holds; 130 interrupted.
    """
    kinds = {"url": url or [], "host": host or [], "uid": uid or [], "sha256": sha256 or [], "phash": phash or []}
    kinds |= {"md5": md5 or [], "sha1": sha1 or [], "source_sha256": source_sha256 or [], "pdq": pdq or []}
    done = _remove(folder, kinds, (lists or [], radius), promote, recipe)
    if done is not None:
        from manifests.store import path_of

        root = path_of(folder)
        result(as_json, removal_document(root, done), removal_lines(root, done))
    elif as_json:
        put("{}")


def _remove(
    folder: str, kinds: dict[str, list[str]], lists: tuple[list[str], int], promote: bool, recipe: str | None
) -> "Outcome | None":
    from manifests.verify import is_run
    from manifests.working_copy import links_in_the_way
    from pipeline.execution.run_folder import recipe_of_run
    from pipeline.execution.step import Runtime
    from pipeline.maintenance.remove.run import remove_rows
    from pipeline.maintenance.remove.selectors import gather, within
    from pipeline.recipes.datasets import DATASETS

    if not folder:
        fail("RUN is empty; wanted a run folder (. for the current one)")
    root = run_folder(folder, writes=True)
    if not root.is_dir() or not is_run(root):
        fail(f"{str(root)!r}: no run folder; wanted the folder that pipeline run has written (output.root)")
    read = recipe_of_run(root, recipe)
    named, radius = lists
    selectors = within(gather(kinds, named, DATASETS[read.input.dataset].local), radius, root)
    if not selectors:
        selectors, promote = _left(root)
    if not selectors:
        return None
    if links := links_in_the_way(root):
        more = f", and {len(links) - 1} more" if len(links) > 1 else ""
        fail(
            f"{links[0]}{more}: the old bytes would stay there; put files and folders of other disks in the place of"
            " such links, or move the whole run to where they lead, and remove then"
        )
    return remove_rows(root, read, Runtime(), selectors, promote)


def _left(root: Path) -> tuple[list["Selector"], bool]:
    """Finish or sweep what a killed removal left; return what is still to be done of it. Raises RecipeError where there
    is nothing."""
    from manifests.transaction import is_left
    from pipeline.execution.run_folder import locked
    from pipeline.maintenance.remove.selectors import UnreadableRequestError, asked_for
    from pipeline.recipes.schema import RecipeError

    if not is_left(root):
        fail(
            "nothing to remove: give --url, --host, --uid, --sha256, --phash, --md5, --sha1, --source-sha256, --pdq or"
            " --list (each may be given several times)"
        )
    with locked(root, removing=True):
        note(f"{root}: swept what a killed removal or run left")
    try:
        return asked_for(root)
    except UnreadableRequestError as error:
        raise RecipeError(f"{error}: give the same selectors again") from error


def removal_document(root: Path, done: "Outcome") -> dict[str, Any]:
    """Return what a removal did, for JSON: rows of the input by selector, what was taken out of what, digests by
    stage."""
    return {
        "run": str(root),
        "rows": done.rows,
        "uids": done.uids,
        "selectors": [
            {"kind": one.kind, "value": one.value, "uids": uids, "known": one in done.known}
            for one, uids in done.found.items()
        ],
        "taken_out": dict(sorted(done.counts.items())),
        "files_changed": done.files,
        "digests": done.stages,
        "to_run_again": list(done.later),
        "recipe_names": _still_named(root, done) if done.record else [],
        "record": done.record,
    }


def removal_lines(root: Path, done: "Outcome") -> Iterator[str]:
    """Yield what each selector meant, what was written anew, and the manifests' digests before and after."""
    for one, uids in done.found.items():
        if one in done.known:
            says = "already removed"
        elif uids:
            says = f"{uids:,} uids"
        else:
            says = "no row here; a tombstone keeps it out of later input"
        yield f"  {one.kind:<8} {one.value}: {says}"
    if not done.record:
        yield f"{root}: already removed, nothing to do"
        return
    yield from (f"  taken out of {what:<28}{count:>8,}" for what, count in sorted(done.counts.items()))
    yield from (f"  files changed in {place:<24}{count:>8,}" for place, count in done.files.items())
    for stage, digests in done.stages.items():
        yield f"  {stage}: digest {digests['before'][:16]}… -> {digests['after'][:16]}…, which names it as its parent"
    yield from (f"  note: {text}" for text in _notes(root, done))
    yield f"{root}: removed {done.rows:,} rows of {done.uids:,} uids; recorded in {done.record} and tombstones.parquet"


def _notes(root: Path, done: "Outcome") -> Iterator[str]:
    """Yield what a removal does not reach."""
    from manifests.store import is_remote

    for what in done.later:
        yield f"{what} has other rows to do now: run its stage again"
    train = sorted(path.relative_to(root).as_posix() for path in (root / "train").glob("*") if path.is_dir())
    for name in train if done.uids else ():
        yield (
            f"{name}: what was trained on removed rows stays in its checkpoints, samples and prompts; train again"
            " without them"
        )
    if is_remote(root):
        yield (
            "where the store keeps former versions of objects, the old bytes stay until its own rules delete them; logs"
            " on other machines are not reached"
        )
    for named in _still_named(root, done):
        yield f"recipe.toml names {named}: the recipe is yours and stays as it is; take it out of your recipe too"
    if done.uids:
        yield (
            "copies of shards or reports that you have given away are not reached; report.html was dropped, make it"
            " again"
        )


def _still_named(root: Path, done: "Outcome") -> list[str]:
    """Return the removed hosts and URLs that the run's copy of the recipe names, in [fetch] connect_to or elsewhere."""
    from pipeline.execution.run_folder import recipe_values

    texts = [text.lower() for text in _texts(recipe_values(root) or {})]
    named = [one for one in done.found if one.kind in ("host", "url")]
    return [one.value for one in named if any(_names(text, one.kind, one.value.lower()) for text in texts)]


def _texts(value: Any) -> Iterator[str]:
    """Yield every text that stands in plain values, keys too."""
    if isinstance(value, str):
        yield value
    for one in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(one)


def _names(text: str, kind: str, value: str) -> bool:
    """Tell whether a text holds a whole URL, or a whole host or one below it; nothing lies below an address."""
    before = r"(?<![\w-])" if kind == "host" and re.search("[a-z]", value) else r"(?<![\w.-])"
    after = r"(?!\.?[\w-])" if kind == "host" else r"(?![^\s,;#\"'])"
    return re.search(f"{before}{re.escape(value)}{after}", text) is not None


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(remove)
