"""List the stages and their steps, in order."""

from pipeline.caption import CaptionStep
from pipeline.decide import Decide
from pipeline.dedup import Dedup
from pipeline.encode import Encode
from pipeline.execution.step import Step
from pipeline.fetch import Fetch
from pipeline.pack import Pack
from pipeline.score import Score
from pipeline.select import Select
from pipeline.t5 import T5

STAGES: dict[str, tuple[type[Step], ...]] = {
    "filter": (Select, Fetch, Score, Dedup, Decide),
    "caption": (CaptionStep,),
    "pretokenize": (Encode, T5, Pack),
}
