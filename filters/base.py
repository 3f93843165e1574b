"""Say what a filter is, and build one from a recipe's rule."""

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.compute as pc


class RuleError(ValueError):
    """A rule of the recipe names no filter, or a threshold is unknown, missing or of the wrong kind."""


class Filter(Protocol):
    """What the stages ask of a filter. Thresholds live in the recipe, their defaults in the filter's fields."""

    @property
    def name(self) -> str:
        """The reason that the ledger records for the rows it drops."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Columns it reads, as named in manifests/schema.py."""

    def keep(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        """Return true, false, or null where a column that it needs is null, for each row."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Base of every filter: a frozen dataclass whose fields are its thresholds, with their units."""

    use: ClassVar[str] = ""
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.use)


_UNIONS = (Union, UnionType)
AnyRule = TypeVar("AnyRule", bound=type[Rule])
FILTERS: dict[str, type[Any]] = {}


def register(use: str) -> Callable[[AnyRule], AnyRule]:
    """Make a filter known to recipes as `use`. Raises ValueError for a name that another filter has."""

    def enter(filter_class: AnyRule) -> AnyRule:
        """Note the class under `use`. Raises ValueError, or TypeError for one that is no dataclass."""
        other = FILTERS.get(use, filter_class)
        if (other.__module__, other.__qualname__) != (filter_class.__module__, filter_class.__qualname__):
            raise ValueError(f"two filters are called {use!r}: {other.__qualname__} and {filter_class.__qualname__}")
        if "__dataclass_fields__" not in vars(filter_class):  # inherited ones do not count
            raise TypeError(f"filter {use!r}: put @dataclass(frozen=True, kw_only=True) under @register")
        filter_class.use = use
        FILTERS[use] = filter_class
        return filter_class

    return enter


def known_filters() -> tuple[str, ...]:
    """Return the names that a rule's `use` may have."""
    return tuple(sorted(FILTERS))


def build_filter(spec: Mapping[str, Any]) -> Filter:
    """Build the filter of a rule such as {use = "size", min_side = 256}; `name` is the reason it records, by default
    `use`.

    Raises RuleError saying what was got and what the choices are.
    """
    use = spec.get("use")
    if not isinstance(use, str) or use not in FILTERS:
        got = f"no filter {use!r}" if "use" in spec else f"rule {dict(spec)!r} has no `use`"
        raise RuleError(f"{got}; known filters: {', '.join(known_filters())}")
    thresholds = {field.name: field for field in fields(FILTERS[use])}
    hints = get_type_hints(FILTERS[use])
    values: dict[str, Any] = {}
    for key, given in spec.items():
        if key == "use":
            continue
        if key not in thresholds:
            raise RuleError(f"filter {use!r} has no threshold {key!r}; it has {_listed(use)}")
        otherwise = key == "otherwise" and isinstance(given, Mapping)
        values[key] = build_filter({"use": use, **given}) if otherwise else _read(use, key, given, hints[key])
    missing = [key for key, field in thresholds.items() if key not in values and _required(field)]
    if missing:
        raise RuleError(f"filter {use!r} needs {missing[0]!r}; it has {_listed(use)}")
    built: Filter = FILTERS[use](**values)
    return built


def _required(field: "Field[Any]") -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _listed(use: str) -> str:
    """Return every threshold of a filter with its type and default, as errors list them."""
    hints = get_type_hints(FILTERS[use])
    shown = [field for field in fields(FILTERS[use]) if field.name != "name"]
    return ", ".join(
        f"{f.name}: {_says(hints[f.name])}" + (" (required)" if _required(f) else f" = {_value(f.default)}")
        for f in shown
    )


def _value(value: Any) -> str:
    return repr(list(value)) if isinstance(value, tuple) else "none" if value is None else repr(value)


def _says(hint: Any) -> str:
    """Return a type in a recipe author's words."""
    if get_origin(hint) in _UNIONS:
        return " or ".join(_says(part) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return " or ".join(repr(choice) for choice in get_args(hint))
    if get_origin(hint) is tuple:
        return f"a list, each {_says(get_args(hint)[0])}"
    words = {float: "a finite number", int: "a whole number", str: "a text", bool: "true or false", NoneType: "none"}
    return words.get(hint, "a table of the same thresholds")


def _read(use: str, key: str, given: Any, hint: Any) -> Any:
    """Return a given value in the threshold's type. Raises RuleError."""
    for part in get_args(hint) if get_origin(hint) in _UNIONS else (hint,):
        if _fits(given, part):
            return float(given) if part is float else tuple(given) if isinstance(given, list) else given
    raise RuleError(f"filter {use!r}: {key} = {given!r}, wanted {_says(hint)}; it has {_listed(use)}")


def _fits(given: Any, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return given in get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(given, list | tuple) and all(_fits(part, get_args(hint)[0]) for part in given)
    if hint is float:
        return isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given)
    return type(given) is hint


def at_least(batch: pa.RecordBatch, column: str, bound: float) -> pa.BooleanArray:
    """Return value >= bound for each row, compared in the column's own precision: a float32 0.3 is at least 0.3. NaN
    counts as null."""
    values = _numbers(batch.column(column))
    return pc.greater_equal(values, pa.scalar(bound, values.type))


def at_most(batch: pa.RecordBatch, column: str, bound: float) -> pa.BooleanArray:
    """Return value <= bound for each row; otherwise as `at_least`."""
    values = _numbers(batch.column(column))
    return pc.less_equal(values, pa.scalar(bound, values.type))


def _numbers(values: pa.Array) -> pa.Array:
    if not pa.types.is_floating(values.type):
        return values.cast(pa.float64())
    return pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
