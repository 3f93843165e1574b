"""What draws is loaded from the file's own words; another tokenizer or encoder than the training's is refused."""

from dataclasses import replace

import pytest
import torch

from manifests.weights import WeightsError
from pipeline.sampling.options import Settings, Source
from pipeline.sampling.pick import Sampling
from pipeline.sampling.prompts import PromptError
from pipeline.training.studio import LLAMAGEN_CLASS, LLAMAGEN_TEXT, open_studio
from tests.support.drawing import SIDE, llamagen_file, own_checkpoint
from tests.support.tiny_t5 import letter_t5, word_t5


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    llamagen_file(folder / "t2i.pt")
    llamagen_file(folder / "c2i.pt", "class", classes=10)
    own_checkpoint(folder / "own")
    return folder


def published(place, name="c2i.pt", **options):
    return Source(str(place / name), **{"vq": "VQ-demo", "size": SIDE, **options})


def test_our_checkpoint_says_all(place):
    studio = open_studio(Source(str(place / "own")), Settings(top_k=3, seed=9))
    assert (studio.size, studio.n_tokens) == (SIDE, 16)
    assert studio.sampling == Sampling(2.5, top_k=3, seed=9)
    assert studio.identity["text"] == "hashed words"
    assert studio.prompts(["a", "b c"]) == ["a", "b c"]
    assert studio.pixels(torch.zeros(9, 16, dtype=torch.int64)).shape == (9, SIDE, SIDE, 3)


def test_llamagens_files_are_drawn_from_as_its_scripts_do(place, tmp_path):
    assert open_studio(published(place), Settings()).sampling == LLAMAGEN_CLASS
    text = open_studio(published(place, "t2i.pt", text_weights=word_t5(tmp_path / "t5")), Settings())
    assert text.sampling == LLAMAGEN_TEXT
    with pytest.raises(PromptError, match="nothing to draw: wanted prompts"):
        text.prompts([])


def test_bf16_keeps_the_rotary_tables_in_fp32(place):
    gpt = open_studio(published(place, precision="bf16"), Settings()).gpt
    assert {parameter.dtype for parameter in gpt.parameters()} == {torch.bfloat16}
    assert gpt.rope_cos_PR.dtype == torch.float32


def test_another_size_takes_longer_tables(place):
    studio = open_studio(Source(str(place / "own"), size=64), Settings())
    assert (studio.n_tokens, studio.gpt.rope_cos_PR.shape[0]) == (64, 8 + 64)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("own", {"vq": "VQ-16"}, "--vq VQ-16 has 16,384 codes, these weights draw 512; choices: VQ-demo"),
        ("own", {"vq": "VQ-9"}, "tokenizer 'VQ-9' is not known"),
        ("own", {"vq_weights": "stand-in"}, r"VQ-demo \(stand-in weights\) .* were made by VQ-demo"),
        ("own", {"vq_weights": "none.pt"}, "no file at 'none.pt'.*--vq-weights"),
        ("own", {"text_weights": "t5"}, "trained with hashed words, which need none"),
        ("own", {"size": 33}, "--size 33: wanted a multiple of 8"),
        ("c2i.pt", {"vq": "VQ-demo", "size": 32, "text_weights": "t5"}, "draw 10 classes and read no text"),
        ("c2i.pt", {"vq": "VQ-demo"}, "give --size, such as 256 .32 x 32 codes of VQ-demo."),
        ("t2i.pt", {"vq": "VQ-demo", "size": 32}, "'google/flan-t5-xl' is neither a folder"),
    ],
)
def test_what_does_not_fit_is_refused(place, name, options, said):
    with pytest.raises(WeightsError, match=said):
        open_studio(replace(Source(str(place / name)), **options), Settings())


def test_another_encoder_or_width_is_refused(place, tmp_path):
    wide, narrow = letter_t5(tmp_path / "wide"), word_t5(tmp_path / "narrow")
    with pytest.raises(ValueError, match=r"16, but the features of .* are 32 wide"):
        open_studio(published(place, "t2i.pt", text_weights=str(wide)), Settings())
    own = own_checkpoint(tmp_path / "own", text="flan-t5-xl 0123456789ab")
    with pytest.raises(
        WeightsError, match=r"T5 .* is not the encoder that these weights were trained with, flan-t5-xl"
    ):
        open_studio(Source(str(own), text_weights=narrow), Settings())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_there_is_not(place):
    with pytest.raises(ValueError, match="torch finds no GPU here; choices: cpu, auto"):
        open_studio(published(place, device="cuda"), Settings())
