"""Load the captioners of the user's own Python files, which the recipe names."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from captioning.base import KINDS, Entry, kind_of
from captioning.captioner import Answer, Ask, Captioner, CaptionerError
from manifests.publishing import RunOver
from manifests.reasons import REASONS
from manifests.weights import WeightsError, WeightsFile
from pipeline.recipes.captions import captioners
from pipeline.recipes.schema import Recipe, RecipeError
from pipeline.recipes.user_code import Blame, UserFile, UserFiles

PASSING = (CaptionerError, WeightsError, RunOver, OSError, MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit)
"""What says itself what happened."""
REASONS_GIVEN = tuple(name for name, reason in REASONS.items() if reason.group in ("caption", "image"))
"""Reasons that an answer may have in place of a text."""


def load_user_captioners(recipe: Recipe) -> None:
    """Make the kinds of captioners of the recipe's Python files known, and those of other recipes' files unknown.

    A file whose content has not changed is not run again. Raises RecipeError with file and line.
    """
    FILES.load(recipe.caption.python)


def captioner_options(recipe: Recipe, name: str) -> dict[str, Any]:
    """Return the recipe's options of a captioner, whose kind is known from now on. Raises RecipeError."""
    load_user_captioners(recipe)
    return recipe.caption.options(name)


def files_behind_captions(recipe: Recipe) -> list[tuple[str, str]]:
    """Return (name, sha256) of the user's Python files whose captioners the tiers ask for. Raises RecipeError."""
    load_user_captioners(recipe)
    return FILES.behind({kind_of(name, recipe.caption.options(name)) for name in captioners(recipe)})


def _check(file: UserFile, made: dict[str, Any]) -> None:
    """Check what a file registered and put guards around it. Raises RecipeError."""
    if not made:
        raise RecipeError(
            f"recipe: caption.python: {file.path} registers no captioner; call"
            ' register_kind("name", Entry(…)) of captioning.base'
        )
    for use, entry in made.items():
        if not isinstance(entry, Entry):
            raise RecipeError(
                f"recipe: caption.python: {file.path}: {use!r} is registered as {type(entry).__name__}, wanted an Entry"
                " of captioning.base"
            )
        KINDS[use] = _guarded(file, use, entry)


def _guarded(file: UserFile, use: str, entry: Entry) -> Entry:
    """Return an entry whose faults name the file and the line; the file's sha256 is one of its settings."""
    blame = Blame(file.path, f"captioner {use!r}", PASSING, CaptionerError)

    def config(options: Mapping[str, Any]) -> Any:
        with blame:
            return entry.config(options)

    def settings(values: Any) -> dict[str, Any]:
        with blame:
            return {**entry.settings(values), "python": file.sha256}

    def weights(values: Any) -> tuple[WeightsFile, ...]:
        with blame:
            return tuple(entry.weights(values))

    def build(name: str, values: Any, batch_size: int | None, ahead: Any) -> Captioner:
        with blame:
            return GuardedCaptioner(name, use, file, blame, entry, entry.build(name, values, batch_size, ahead))

    return replace(entry, config=config, settings=settings, weights=weights, build=build)


class GuardedCaptioner:
    """A user's captioner: its faults name file and line, and what it yields are answers that a run can keep."""

    def __init__(self, name: str, use: str, file: UserFile, blame: Blame, entry: Entry, made: Any) -> None:
        self.name, self.version = name, entry.version
        self.model, self.revision = str(getattr(made, "model", use)), str(getattr(made, "revision", file.sha256))
        self._file, self._use, self._blame = file, use, blame
        self._answers: Callable[[Iterable[Ask]], Iterable[Answer]] = made.answers

    def answers(self, asks: Iterable[Ask]) -> Iterator[Answer]:
        """Yield the captioner's answers. Raises CaptionerError."""
        with self._blame:
            for answer in self._answers(asks):
                if fault := fault_of(answer):
                    raise CaptionerError(f"captioner {self._use!r} of {self._file.path}: {fault}")
                yield answer


def fault_of(answer: object) -> str:
    """Return what is wrong with an answer, or nothing."""
    if not isinstance(answer, Answer) or not isinstance(answer.uid, bytes):
        return f"answers gave {answer!r:.80}, wanted an Answer of captioning.captioner with the uid of its question"
    if not isinstance(answer.text, str) or any("\ud800" <= letter <= "\udfff" for letter in answer.text):
        return f"its text is {answer.text!r:.80}, wanted whole characters"
    for name in ("tokens", "prompt_tokens"):
        count = getattr(answer, name)
        if type(count) is not int or not 0 <= count < 1 << 31:
            return f"its {name} are {count!r:.80}, wanted a whole number of 31 bits"
    if not isinstance(answer.at_limit, bool):
        return f"its at_limit is {answer.at_limit!r:.80}, wanted true or false"
    if answer.reason is not None and answer.reason not in REASONS_GIVEN:
        return f"its reason is {answer.reason!r}; those that there are: {', '.join(REASONS_GIVEN)}"
    return ""


FILES = UserFiles("caption.python", KINDS, _check)
