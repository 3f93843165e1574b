"""Draw which caption of a sample an epoch reads, by the weights of their sources."""

from collections.abc import Mapping, Sequence

from pipeline.recipes.captions import FIT, OF_INPUT, RECAPTION, SHORT

Said = Sequence[tuple[str, str]]
"""Captions as (source, text)."""


def drawable(captions: Said) -> list[tuple[str, str]]:
    """Return the captions that have more than white space in them, and what else names them: `recaption` and
    `recaption_short` are those of the first captioner, and NAME_fit is the whole caption where all of it fits, none
    where not even its first sentence does."""
    there = [caption for caption in captions if caption[1].strip()]
    texts, given = dict(there), {source for source, _ in captions}
    names = [source for source in texts if source not in OF_INPUT and not source.endswith((SHORT, FIT))]
    also = {name + FIT: texts[name] for name in names}
    if names:
        also |= {RECAPTION + end: texts[names[0] + end] for end in ("", SHORT) if names[0] + end in texts}
    return [*there, *((source, text) for source, text in also.items() if source not in given)]


class Drawing:
    """Which caption is drawn, and whether stored features are of it."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        """weights: source -> weight. Sources that a sample lacks, or whose caption has no words, are left out of its
        draw; where none is left, its first caption with words is drawn, or an empty one."""
        self.weights = {source: weight for source, weight in weights.items() if weight > 0}
        self._plain = not any(source.startswith(RECAPTION) or source.endswith(FIT) for source in self.weights)

    def draw(self, captions: Said, share: float) -> tuple[str, str]:
        """Return (source, text) at `share`, 0..1, of the weights of what there is; ("", "") where there is nothing."""
        there = captions if self._plain else drawable(captions)
        candidates = [one for one in there if one[0] in self.weights and one[1].strip()]
        if not candidates:
            return next((one for one in captions if one[1].strip()), captions[0] if captions else ("", ""))
        rest = share * sum(self.weights[source] for source, _ in candidates)
        for source, text in candidates:
            rest -= self.weights[source]
            if rest < 0:
                return source, text
        return candidates[-1]


def is_of(text: str, source: str, captions: Said) -> bool:
    """Tell whether a drawn text is the caption that `source` names, and has words."""
    return bool(text) and text == dict(drawable(captions)).get(source)
