"""Compare the text features that samples carry with those that the trainer makes, before anything is read or moved."""

from manifests.weights import WeightsError
from pipeline.recipes.train import TrainConfig
from tokenize_shards.samples import CodeSample, LoaderError
from tokenize_shards.text import t5_weights

REMEDY = "or pack the codes without features (pretokenize.t5 = 'online', then `make pretokenize`)"


def check_stored_text(config: TrainConfig, sample: CodeSample) -> str | None:
    """Return what to say where stored features cannot be compared; None where they are the trainer's, or there are
    none. Raises LoaderError, with the remedy, for features of another width or of another encoder."""
    if config.condition != "text" or sample.features is None:
        return None
    tier, width = config.tier, sample.features.shape[1]
    if width != config.cond_dim:
        raise LoaderError(
            f"the text features stored with the codes of tier {tier!r} are {width} wide, train.cond_dim is"
            f" {config.cond_dim}: set train.cond_dim = {width} for a new model, {REMEDY}"
        )
    if config.text != "t5":
        raise LoaderError(
            f"the codes of tier {tier!r} carry features of T5 {_short(sample.features_by)}, train.text is"
            f" {config.text!r}: set train.text = 't5', {REMEDY}"
        )
    if not sample.features_by:
        return f"note: the codes of tier {tier!r} do not say which encoder made their text features"
    try:
        ours = t5_weights(config.text_weights).sha256
    except WeightsError:
        return None  # the encoder itself says what is missing
    if ours != sample.features_by:
        raise LoaderError(
            f"the text features stored with the codes of tier {tier!r} were made by T5 {_short(sample.features_by)},"
            f" train.text_weights {config.text_weights!r} is {_short(ours)}: name the same encoder, {REMEDY}"
        )
    return None


def _short(sha256: str) -> str:
    return f"{sha256[:12]}…" if sha256 else "of unknown weights"
