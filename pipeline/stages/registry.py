"""List the stages and their steps, in order."""

from pipeline.execution.step import Step
from pipeline.steps.caption import CaptionStep
from pipeline.steps.decide import Decide
from pipeline.steps.dedup import Dedup
from pipeline.steps.encode import Encode
from pipeline.steps.fetch.step import Fetch
from pipeline.steps.pack import Pack
from pipeline.steps.score import Score
from pipeline.steps.select import Select
from pipeline.steps.t5 import T5

STAGES: dict[str, tuple[type[Step], ...]] = {
    "filter": (Select, Fetch, Score, Dedup, Decide),
    "caption": (CaptionStep,),
    "pretokenize": (Encode, T5, Pack),
}
