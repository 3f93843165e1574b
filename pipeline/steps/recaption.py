"""caption / recaption: ask once more where a flag of the first attempt asks for it, with another prompt or seed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from captioning.gate.flags import flag_table
from captioning.gate.verdicts import wants_retry
from captioning.prompts import Prompt
from manifests.files import digest_of, read_table
from manifests.journal import records_of, upstream
from pipeline.steps.caption import CaptionStep, CaptionWorker, OneAtATime, asked, texts_of_shard


@dataclass(frozen=True)
class Recaption(CaptionStep):
    """Units are (captioner, shard of pairs) with a picture that is asked about a second time; none, and no model is
    loaded, where there is no such picture."""

    name: ClassVar[str] = "recaption"
    folder: ClassVar[str] = "retries"
    loaded_before: ClassVar[bool] = True

    def prompt(self, captioner: str) -> Prompt:
        """Return what a captioner is asked the second time."""
        other = self.recipe.caption.gate.retry_prompt
        return self.named(other) if other else super().prompt(captioner)

    def settings(self) -> dict[str, Any]:
        """Return what is asked, of whom, and what its words depend on. Which flags ask for it decides who is in the
        plan, and stands in no key."""
        seed = self.recipe.caption.gate.second_seed
        return {name: {**settings, "seed": seed} for name, settings in super().settings().items()}

    def open(self) -> CaptionWorker:
        """Load nothing: the first step has found every captioner fit, and where answers are carried over none is
        asked."""
        return CaptionWorker(self, OneAtATime(self))

    def _planned_from(self) -> str:
        gate = self.recipe.caption.gate
        return digest_of([super()._planned_from(), gate.model_dump(mode="json"), upstream(self.root, "measure")])

    def _asked(self, captioner: str, tiers: list[str]) -> Iterator[tuple[str, pa.Table]]:
        """Yield (shard of pairs, what is asked of those of its pictures that are asked again)."""
        gate, prompt = self.recipe.caption.gate, self.prompt(captioner)
        for record in records_of(self.root, "measure"):
            name, _, shard = record.shard.rpartition("-")
            if name != captioner:
                continue
            measures = read_table(self.root / record.files[0].path)
            again = measures.filter(pa.array(wants_retry(flag_table(measures, gate), gate)))
            if again.num_rows:
                texts = texts_of_shard(self.root, shard) if prompt.fields else None
                yield shard, asked(again, prompt, gate.second_seed, texts)
