"""Slots that are refilled say what each question says alone."""

import numpy as np
import pytest
import torch
from PIL import Image

from captioning.captioner import CaptionerError
from captioning.captioners.refill import Question, Refill, can_refill
from tests.support.tiny_vlms import KINDS, write_tiny

pytestmark = pytest.mark.usefixtures("one_thread")
END = 2


@pytest.fixture(scope="module", params=KINDS)
def asked(request, tmp_path_factory):
    """Return a tiny model, questions of several lengths about pictures of several shapes, and what `generate` answers
    to each alone."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = write_tiny(request.param, tmp_path_factory.mktemp(request.param))
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    rng = np.random.default_rng(1)
    questions, answers = [], {}
    for number in range(24):
        pixels = rng.integers(0, 256, (rng.integers(20, 90), rng.integers(20, 90), 3), np.uint8)
        turn = [{"type": "image"}, {"type": "text", "text": "What? " * (1 + number % 3)}]
        text = processor.apply_chat_template([{"role": "user", "content": turn}], add_generation_prompt=True)
        inputs = processor(images=[Image.fromarray(pixels)], text=[text], return_tensors="pt")
        limit = int(rng.integers(1, 40))
        out = model.generate(**inputs, do_sample=False, max_new_tokens=limit, eos_token_id=END, pad_token_id=3)
        questions.append(Question(number, dict(inputs), limit))
        answers[number] = out[0, inputs["input_ids"].shape[1] :].tolist()
    return model, questions, answers


def greedy(key, logits_V, place):
    return int(logits_V.argmax())


def said(found):
    """Return key -> tokens with the ending one, as `generate` gives them."""
    return {question.key: [*tokens, *([] if at_limit else [END])] for question, tokens, at_limit in found}


@pytest.mark.parametrize("slots", [1, 2, 5, 8, 32])
def test_every_number_of_slots_says_what_generate_says_one_by_one(asked, slots):
    model, questions, answers = asked
    assert can_refill(model)
    assert len({tuple(tokens) for tokens in answers.values()}) > 12
    assert any(END in tokens for tokens in answers.values())
    refill = Refill(model, slots, frozenset([END]), greedy)
    assert said(refill.answers(iter(questions))) == answers
    assert refill.counts.read == len(questions)
    assert refill.counts.useful == sum(len(tokens) - 1 for tokens in answers.values())


def test_questions_are_drawn_as_slots_are_free(asked):
    model, questions, _ = asked
    drawn = []

    def lazily():
        for question in questions:
            drawn.append(question.key)
            yield question

    answers = Refill(model, 3, frozenset([END]), greedy).answers(lazily())
    for ended, _ in enumerate(answers, 1):
        assert len(drawn) <= ended + 3


def test_a_slot_that_ends_is_given_the_next_question_at_once(asked):
    model, questions, _ = asked
    rng = np.random.default_rng(2)
    lengths = np.clip(rng.normal(25, 8, 200), 1, 60).astype(int)
    many = [Question(number, questions[0].inputs, int(length)) for number, length in enumerate(lengths)]
    refill = Refill(model, 8, frozenset(), greedy)
    assert sum(1 for _ in refill.answers(iter(many))) == 200
    assert refill.counts.share > 0.9  # static batches of 8 would keep some 0.7


FULL = (
    torch.OutOfMemoryError("planted"),
    MemoryError(),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried to allocate"
    ),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
)


@pytest.mark.parametrize("full", FULL, ids=["class", "python", "cpu", "cublas"])
def test_memory_that_runs_out_halves_the_slots_and_loses_nothing(asked, full):
    model, questions, answers = asked
    steps = []

    def forward(**inputs):
        steps.append(len(inputs["input_ids"]))
        if len(inputs["input_ids"]) > 2:
            raise full
        return model(**inputs)

    refill = Refill(model, 8, frozenset([END]), greedy, forward)
    assert said(refill.answers(iter(questions))) == answers
    assert (refill.slots, refill.counts.halved, steps[:3]) == (2, 2, [8, 4, 2])


def test_memory_that_does_not_hold_one_question_is_one_clear_failure(asked):
    model, questions, _ = asked

    def forward(**inputs):
        raise torch.OutOfMemoryError("planted")

    with pytest.raises(CaptionerError, match="does not hold one question"):
        list(Refill(model, 4, frozenset([END]), greedy, forward).answers(iter(questions)))


def test_a_question_that_cannot_be_read_is_told_and_passed_over(asked):
    model, questions, answers = asked
    broken = Question("broken", {**questions[0].inputs, "input_ids": torch.tensor([[10**6]])}, 4)
    told = []
    refill = Refill(model, 3, frozenset([END]), greedy, failed=lambda question, error: told.append(question.key))
    assert said(refill.answers(iter([questions[0], broken, *questions[1:]]))) == answers
    assert told == ["broken"]
    with pytest.raises((IndexError, ValueError, RuntimeError)):
        list(Refill(model, 3, frozenset([END]), greedy).answers(iter([broken])))


def test_one_question_that_memory_cannot_hold_costs_nobody_else_theirs(asked, monkeypatch):
    model, questions, answers = asked
    wide, told = questions[20], []
    real = type(model).forward

    def forward(self, *args, **inputs):
        if inputs.get("input_ids") is wide.inputs["input_ids"]:
            raise torch.OutOfMemoryError("planted")
        return real(self, *args, **inputs)

    monkeypatch.setattr(type(model), "forward", forward)
    refill = Refill(model, 8, frozenset([END]), greedy, failed=lambda question, error: told.append(question.key))
    assert said(refill.answers(iter(questions))) == {key: one for key, one in answers.items() if key != 20}
    assert told == [20]
    assert refill.slots == 8  # as many as before it
    with pytest.raises(CaptionerError, match="does not hold one question"):
        list(Refill(model, 8, frozenset([END]), greedy, failed=print).answers(iter([wide])))
