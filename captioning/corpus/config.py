"""What the recipe may ask of the captions of a run as a whole: [caption.audit]."""

from pydantic import BaseModel, ConfigDict, Field


class AuditConfig(BaseModel):
    """[caption.audit]: bounds that look at all captions of a run at once."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_repeats: int | None = Field(
        None,
        ge=1,
        description="pictures of different pHash that one caption may stand beside; more are flagged"
        " `repeated_in_corpus`; none: nothing is counted",
    )
