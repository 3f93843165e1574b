"""Read a recipe: from a file or the bundled ones, with --set values, strictly."""

import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from filters.fetch.optout import LATER
from manifests.files import FormatError, parsing
from manifests.roots import place_of
from manifests.store import is_remote
from pipeline.recipes.schema import ExcludeFile, Recipe, RecipeError, TierSection

A_TIER = """[tier.pretrain]
size = 256
rules = [{ use = "size", min_side = 256 }]"""
NO_TIER = (
    "no tier: a tier is a set of pairs for one purpose: the side of its square crops, in pixels, and the rules that a"
    f" pair must pass beside those of [filter]. A recipe needs one or more, such as\n\n{A_TIER}"
)
LARGEST = 2**63 - 1
"""The largest whole number that Arrow, DuckDB and C take."""
DEEPEST = 32
BEFORE = {
    "engine", "deadline_s", "max_bytes", "max_redirects", "max_pixels", "allow_addresses", "shard_rows", "robots",
    "opt_outs", "jpeg_quality",
}  # fmt: skip
"""Keys of [fetch] that every recipe holds that a run has resolved."""
MOST_SHOWN = 200
"""Characters of a wrong value that a message repeats."""
KINDS: dict[Any, type[BaseModel]] = {"ExcludeFile": ExcludeFile}
"""Tables that stand where a value of another kind may stand too, by the name that pydantic has for them in a place."""
BUNDLED = ("demo", "demo_artworks", "laion_coco", "laion_coco_512")


def bundled(name: str) -> Path:
    """Return the path of a recipe that comes with the package."""
    return Path(str(resources.files("pipeline") / "recipes" / f"{name}.toml"))


def choose_recipe(has_emoji: Callable[[], bool]) -> tuple[Path, str]:
    """Return (path, what to tell the user) when no recipe was named: `recipe.toml` here, else the bundled demo.

    `has_emoji` is asked for the latter alone: what the demo can show depends on the machine.
    """
    here = Path("recipe.toml")
    if here.is_file():
        return here, "recipe: recipe.toml of this folder"
    name = "demo" if has_emoji() else "demo_artworks"
    return bundled(name), f"recipe: no recipe.toml here, so the bundled {name}.toml"


def load_recipe(path: Path | str, sets: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe. `path` is a file or a bundled name.

    Raises RecipeError with what was got, what was wanted and the choices; RootError for a URL that is none.
    """
    file = place_of(str(path))
    if not file.is_file() and str(path) in BUNDLED:
        file = bundled(str(path))
    try:
        with parsing(file, "not TOML"):
            data = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(
            f"recipe: cannot read {str(file)!r} ({error.strerror}); give a TOML file or one of {', '.join(BUNDLED)}"
        ) from error
    except FormatError as error:
        raise RecipeError(f"recipe: {file} is not TOML: {error.__cause__}") from error
    data = set_over(data, sets)
    check_texts(data)  # before the paths are looked for
    find_beside(data, file.parent)
    find_lists(data, file.parent)
    return parse_recipe(data)


def parse_recipe(data: dict[str, Any]) -> Recipe:
    """Check plain values against the recipe's models and rules. Raises RecipeError."""
    check_texts(data)
    data = with_later_words(data)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        faults = sorted(
            _nearest(error.errors())[:5], key=lambda fault: fault["loc"] == ("tier",)
        )  # its example is last
        raise RecipeError("recipe: " + "; ".join(_explain(data, fault) for fault in faults)) from error
    from pipeline.recipes.checks import check_models, check_rules  # the catalogues are needed only here

    check_numbers(recipe.model_dump())  # here a text such as "Infinity" has become a number
    check_rules(recipe)
    check_models(recipe)
    return recipe


def set_over(data: dict[str, Any], sets: Sequence[str]) -> dict[str, Any]:
    """Return a recipe's plain values with `KEY=VALUE` settings over them: what is set says what it says, whenever the
    recipe was resolved. Raises RecipeError."""
    data = with_later_words(data)
    for setting in sets:
        apply_set(data, setting)
    return data


def with_later_words(data: dict[str, Any]) -> dict[str, Any]:
    """Return plain values in which a recipe that was resolved before there were later words of `fetch.opt_outs` obeys
    them: it lists the words of its time, and meant all refusals that it lists and all that were to come.

    Such a recipe holds every key of its time (BEFORE), but not `fetch.robots_4xx`, whose default it gets, which makes
    it one of today; what a person writes means what it says.
    """
    fetch = data.get("fetch")
    if not isinstance(fetch, dict) or "robots_4xx" in fetch or not fetch.keys() >= BEFORE:
        return data
    words = fetch["opt_outs"]
    if isinstance(words, list) and set(LATER).isdisjoint(map(str, words)):
        words = [*words, *LATER]
    return {**data, "fetch": {**fetch, "opt_outs": words, "robots_4xx": "allow"}}


def _values(data: Any) -> Iterator[tuple[str, Any]]:
    """Yield (place, value) of plain values that are no tables or lists, and of keys. Raises RecipeError beyond DEEPEST,
    where pydantic and Python's own recursion would end."""
    waiting: list[tuple[tuple[Any, ...], Any]] = [((), data)]
    while waiting:
        place, value = waiting.pop()
        if len(place) > DEEPEST:
            raise RecipeError(f"recipe: {place[0]}: tables and lists stand in each other more than {DEEPEST} deep")
        if isinstance(value, Mapping):
            waiting += [((*place, key), item) for key, item in value.items()]
            waiting += [((*place, "a key"), key) for key in value]
        elif isinstance(value, list | tuple):
            waiting += [((*place, number), item) for number, item in enumerate(value)]
        else:
            yield ".".join(map(str, place)), value


def check_texts(data: Mapping[str, Any]) -> None:
    """Raise RecipeError for a text of plain recipe values that holds NUL, which no path can."""
    for place, value in _values(data):
        if isinstance(value, str) and "\0" in value:
            raise RecipeError(f"recipe: {place}: got {value!r}, wanted a text without NUL")


def check_numbers(data: Mapping[str, Any]) -> None:
    """Raise RecipeError for a number of plain recipe values that is not finite, or a whole one beyond 64 bits."""
    for place, value in _values(data):
        if isinstance(value, float) and not math.isfinite(value):
            raise RecipeError(f"recipe: {place}: got {value}, wanted a finite number")
        if isinstance(value, int) and abs(value) > LARGEST:
            raise RecipeError(f"recipe: {place}: got a number of {value.bit_length()} bits, wanted at most {LARGEST}")


def _nearest(faults: Sequence[Any]) -> list[Any]:
    """Return the faults of a recipe; of a value that may be several kinds of thing, those of the kind that it comes
    nearest to: pydantic names what it lacks of each."""
    deepest: dict[Any, int] = {}
    for fault in faults:
        if set(fault["loc"]) & KINDS.keys():
            deepest[fault["loc"][:2]] = max(deepest.get(fault["loc"][:2], 0), len(fault["loc"]))
    return [fault for fault in faults if len(fault["loc"]) >= deepest.get(fault["loc"][:2], 0)]


def _explain(data: Mapping[str, Any], fault: Any) -> str:
    """Say what was got, wanted and known for one pydantic error."""
    kind = next((KINDS[part] for part in fault["loc"] if part in KINDS), None)
    fault = {**fault, "loc": tuple(part for part in fault["loc"] if part not in KINDS and "[" not in str(part))}
    where = ".".join(str(part) for part in fault["loc"])
    if where == "tier" and fault["type"] in ("missing", "too_short"):
        return NO_TIER
    if fault["type"] != "extra_forbidden":
        of_table = fault["type"] == "value_error" and _section(fault["loc"])  # the message names the keys
        got = "" if fault["type"] == "missing" or of_table else f" (got {_short(fault.get('input'))})"
        return f"{where}: {fault['msg']}{got}"
    *sections, _ = fault["loc"]
    model = kind or next((found for end in range(len(sections), 0, -1) if (found := _section(sections[:end]))), Recipe)
    table = ".".join(map(str, sections))
    return (
        f"unknown key {where!r}; known keys of {f'[{table}]' if table else 'the recipe'}:"
        f" {', '.join(sorted(model.model_fields))}"
    )


def _section(loc: Sequence[Any]) -> type[BaseModel] | None:
    """Return the model of the table at a place of the recipe, None where no table of its own stands there."""
    model: type[BaseModel] = Recipe
    for part in loc:
        if part == "tier" and model is Recipe:
            model = TierSection
        elif model is not TierSection or part in model.model_fields:  # else the name of a tier
            section = model.model_fields[part].annotation if part in model.model_fields else None
            if not (isinstance(section, type) and issubclass(section, BaseModel)):
                return None
            model = section
    return model


def _short(value: Any) -> str:
    """Return a value as Python writes it, of a long one the beginning."""
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}… of {len(text):,} characters"


def apply_set(data: dict[str, Any], setting: str) -> None:
    """Apply one `KEY=VALUE` to plain values: the value is TOML, else text; a rule in a list goes by its name."""
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {setting!r}: wanted KEY=VALUE, such as --set tier.pretrain.size=256")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    except (ValueError, RecursionError) as error:  # a number of 4,300 digits; lists in lists
        raise RecipeError(f"--set {key}: no value can be read: {error}") from error
    place: Any = data
    parts = key.strip().split(".")
    for part in parts[:-1]:
        place = _step_into(place, part, setting)
    if isinstance(place, list):
        raise RecipeError(f"--set {setting!r}: {parts[-1]!r} is a rule; name one of its thresholds too")
    place[parts[-1]] = value


def _step_into(place: Any, part: str, setting: str) -> Any:
    if isinstance(place, list):
        names = [rule.get("name", rule.get("use")) for rule in place if isinstance(rule, dict)]
        if part not in names:
            raise RecipeError(
                f"--set {setting!r}: no rule {part!r} here; the rules are {', '.join(map(str, names)) or 'none'}"
            )
        return next(rule for rule in place if isinstance(rule, dict) and rule.get("name", rule.get("use")) == part)
    child = place.setdefault(part, {})
    if not isinstance(child, dict | list):
        raise RecipeError(f"--set {setting!r}: {part!r} is a value, not a table")
    return child


def find_lists(data: dict[str, Any], folder: Path) -> None:
    """Make the paths of lists absolute in plain recipe values: a file beside the recipe, else in the current folder."""
    for table, key in (
        ("filter", "exclude"),
        ("dedup", "placeholders"),
        ("decontaminate", "images"),
        ("decontaminate", "prompts"),
    ):
        section = data.get(table)
        one = (str, dict) if key == "exclude" else str
        if isinstance(section, dict) and isinstance(section.get(key), str | list | dict):
            named = [section[key]] if isinstance(section[key], one) else section[key]
            section[key] = [_beside(entry, folder) for entry in named] if isinstance(named, list) else named


def _beside(entry: Any, folder: Path) -> Any:
    if isinstance(entry, dict) and isinstance(entry.get("file"), str):
        return {**entry, "file": _beside(entry["file"], folder)}
    if not isinstance(entry, str) or re.fullmatch(r"[0-9a-fA-F]{16}", entry):
        return entry
    return str((beside if (beside := _in(folder, entry)).exists() else Path(entry)).absolute())


def _in(folder: Path, name: str) -> Path:
    """Return the path of a file that a recipe names, where it lies beside the recipe. What recipes name lies on disks,
    also where the recipe is in a store."""
    return Path(name) if is_remote(folder) else folder / name


def find_beside(data: dict[str, Any], folder: Path) -> None:
    """Make the paths of `filter.python` and `caption.python` absolute in plain recipe values: a file beside the recipe,
    else in the current folder."""
    for table in ("filter", "caption"):
        section = data.get(table)
        named = section.get("python") if isinstance(section, dict) else None
        if isinstance(section, dict) and isinstance(named, str | list):
            paths = [named] if isinstance(named, str) else named
            section["python"] = [_file_beside(path, folder) for path in paths]


def _file_beside(path: Any, folder: Path) -> Any:
    if not isinstance(path, str):
        return path
    return str((beside if (beside := _in(folder, path)).is_file() else Path(path)).absolute())
