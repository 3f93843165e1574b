"""What an audit of captions says: the figures as the command, the page and JSON show them."""

from dataclasses import dataclass

from captioning.corpus.bias import Kept, Mention
from captioning.corpus.intervals import Share
from captioning.corpus.lengths import LengthFacts, VocabularyFacts


@dataclass(frozen=True)
class Repeated:
    """A caption that stands beside several pictures: how many captions, and how many different pHashes."""

    text: str
    captions: int
    pictures: int
    example: str


@dataclass(frozen=True)
class Skeleton:
    """Eight words, names and numbers masked, that come back: over how many pictures of different pHash. As many as
    `missed` more may have gone uncounted."""

    text: str
    pictures: int
    missed: int
    share: Share
    example: str


@dataclass(frozen=True)
class Ending:
    """How captions begin or end: the words, and how many captions do."""

    text: str
    captions: Share
    example: str


@dataclass(frozen=True)
class Leak:
    """What leaked into captions: which text or prompt, how many captions, and some of them by uid."""

    what: str
    captions: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Languages:
    """Languages of a sample: `alt` and `caption` by code, `changed`: of the pictures with both, those whose caption is
    in another language; `shifts`: from, to, pictures."""

    pictures: int
    alt: dict[str, int]
    caption: dict[str, int]
    changed: Share
    shifts: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True)
class Repeats:
    """`texts`: how many captions stand beside several pictures, and `captions`: of all captions the ones that are
    such a text; `top`: the most frequent."""

    texts: int
    captions: Share
    top: tuple[Repeated, ...]


@dataclass(frozen=True)
class CaptionerAudit:
    """All that is said of one captioner. `own`: captions in its own words, which all else is about."""

    captioner: str
    rows: int
    own: int
    origins: dict[str, int]
    dropped: dict[str, int]
    flags: dict[str, int]
    repeats: Repeats
    skeletons: tuple[Skeleton, ...]
    openings: tuple[Ending, ...]
    closings: tuple[Ending, ...]
    leaks: tuple[Leak, ...]
    leaked: Share
    lengths: dict[str, LengthFacts]
    vocabulary: dict[str, VocabularyFacts]
    languages: Languages | None
    compared: int
    """Pictures with an alt text and a caption: what `mentions` is about."""
    mentions: tuple[Mention, ...]
    apart: int
    """Groups whose share in captions is another than in alt texts."""


@dataclass(frozen=True)
class FilterAudit:
    """Which groups the filter keeps: `rows` with a known alt text, `judged`: of those whose picture came the kept ones,
    `score`: whose mean is told; `groups`, and `apart`: how many of them differ from the rest."""

    rows: int
    judged: Share
    score: str
    groups: tuple[Kept, ...]
    apart: int


@dataclass(frozen=True)
class Audit:
    """The captions of a run as a whole. `by_chance`: of how many groups an interval at 95 % leaves the truth out if
    each were drawn alone: one in twenty."""

    run: str
    captioners: tuple[CaptionerAudit, ...]
    filter: FilterAudit
    by_chance: float = 0.05
    notes: tuple[str, ...] = ()
