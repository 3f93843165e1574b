"""What the engine is given and what becomes of its answers, against a module of vLLM's signature: vLLM itself needs a
GPU, and was never run here."""

import io
import sys
from types import ModuleType, SimpleNamespace

import pytest
from PIL import Image

from captioning.base import captioner_promise, captioner_settings, captioner_weights, check_captioner
from captioning.captioner import Ask, CaptionerError
from captioning.captioners import vllm
from captioning.captioners.vllm import VllmCaptioner, vllm_config_of
from manifests.weights import WeightsError
from tests.support.tiny_vlms import write_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny("llava", tmp_path_factory.mktemp("model"))


@pytest.fixture
def engine(monkeypatch):
    """Put a module in vLLM's place that answers with the length of the prompt, and return what it was given."""
    given = SimpleNamespace(made=[], windows=[])

    class SamplingParams:
        def __init__(self, temperature=1.0, top_p=1.0, max_tokens=16, seed=None):
            self.temperature, self.top_p, self.max_tokens, self.seed = temperature, top_p, max_tokens, seed

    class LLM:
        def __init__(self, model, **how):
            given.made.append((model, how))

        def generate(self, prompts, sampling_params, *, use_tqdm=True):
            assert not use_tqdm
            assert len(prompts) == len(sampling_params)
            if any("refuse" in one["prompt"] for one in prompts):
                raise ValueError("prompt is too long")
            given.windows.append((prompts, sampling_params))
            return [self._made(one, how) for one, how in zip(prompts, sampling_params, strict=True)]

        def _made(self, prompt, how):
            text = f" {len(prompt['prompt'])} letters \n"
            said = SimpleNamespace(text=text, token_ids=[1, 2, 3], finish_reason="length" if how.seed else "stop")
            return SimpleNamespace(outputs=[said], prompt_token_ids=[5] * 7)

    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SamplingParams
    module.__spec__ = SimpleNamespace(name="vllm")
    monkeypatch.setitem(sys.modules, "vllm", module)
    return given


def ask(number, prompt="What is this?", seed=0, image=None):
    out = io.BytesIO()
    Image.new("RGB", (40, 30), (number * 9 % 256, 60, 90)).save(out, "JPEG")
    return Ask(bytes([number]) * 16, out.getvalue() if image is None else image, prompt, seed)


def captioner(folder, window=None, **options):
    return VllmCaptioner("mine", vllm_config_of({"model": str(folder), **options}), window)


def test_questions_come_in_windows_with_the_models_own_chat_form(folder, engine):
    mine = captioner(folder, 2, max_new_tokens=50, context=900, gpus=2)
    answers = list(mine.answers(ask(n) for n in range(1, 6)))
    assert [len(prompts) for prompts, _ in engine.windows] == [2, 2, 1]
    (model, how), ((first, _), (params, _)) = engine.made[0], engine.windows[0]
    assert model == str(folder)
    assert (how["max_model_len"], how["tensor_parallel_size"], how["trust_remote_code"]) == (900, 2, False)
    assert first["prompt"] == "USER: <image>\nWhat is this? ASSISTANT:"
    assert first["multi_modal_data"]["image"].size == (40, 30)
    assert (params.temperature, params.max_tokens, params.seed) == (0.0, 50, None)
    assert [one.uid for one in answers] == [bytes([n]) * 16 for n in range(1, 6)]
    assert (answers[0].text, answers[0].tokens, answers[0].prompt_tokens) == ("38 letters", 3, 7)
    assert not answers[0].at_limit


def test_a_seed_draws_words_by_picture(folder, engine):
    mine = captioner(folder, temperature=0.5, top_p=0.8)
    answers = list(mine.answers([ask(1, seed=7), ask(2, seed=7), ask(1, seed=8)]))
    ((_, params),) = engine.windows
    assert [(one.temperature, one.top_p) for one in params] == [(0.5, 0.8)] * 3
    assert len({one.seed for one in params}) == 3
    assert answers[0].at_limit


def test_strangers_words_are_no_special_tokens(folder, engine):
    list(captioner(folder).answers([ask(1, "a <image> and </s>\x00 here")]))
    ((prompts, _),) = engine.windows
    assert prompts[0]["prompt"].count("<image>") == 1
    assert "</s>" not in prompts[0]["prompt"]


def test_what_does_not_open_and_what_is_refused_have_reasons(folder, engine):
    asks = [ask(1), ask(2, image=b"no picture"), ask(3, "please refuse"), ask(4)]
    answers = {one.uid[0]: one for one in captioner(folder).answers(asks)}
    assert {number: one.reason for number, one in answers.items()} == {
        1: None,
        2: "not_an_image",
        3: "captioner_failed",
        4: None,
    }
    with pytest.raises(CaptionerError, match="mine: vLLM refuses every question: prompt is too long"):
        list(captioner(folder).answers([ask(1, "refuse"), ask(2, "refuse")]))


def test_nothing_is_asked_of_an_engine_without_questions(folder, engine):
    assert list(captioner(folder).answers([])) == []
    assert engine.windows == []


def test_without_vllm_it_is_said_in_one_sentence(folder, monkeypatch):
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    monkeypatch.setattr(vllm, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=r'vllm is not installed here; docs/install.md .* use = "openai"'):
        captioner_weights("mine", {"use": "vllm", "model": str(folder)})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"model": "stand-in"}, "wanted a real model"),
        ({"gpu_memory": 2}, "gpu_memory"),
        ({"temprature": 1}, "unknown key 'temprature'; known keys:"),
    ],
)
def test_wrong_options_are_named(options, says):
    with pytest.raises(CaptionerError, match=says):
        check_captioner("mine", {"use": "vllm", **options})


def test_its_words_are_not_promised_and_its_machine_is_in_no_key(folder, engine):
    options = {"use": "vllm", "model": str(folder)}
    assert captioner_promise("mine", options) == "not promised"
    other = {**options, "gpu_memory": 0.5, "gpus": 4, "batch_size": 9, "context": 4096}
    assert captioner_settings("mine", options) == captioner_settings("mine", other)
    assert captioner_weights("mine", options)[0].name == "llava"
