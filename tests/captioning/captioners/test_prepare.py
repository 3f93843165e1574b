"""Pictures and prompts on their way to a model."""

from types import SimpleNamespace

import pytest
from tokenizers import AddedToken

from captioning.captioners.prepare import Here, complete_processor, harmless, processor_of
from captioning.stand_in import write_stand_in
from manifests.weights import WeightsError


def test_without_processes_the_work_is_done_when_it_is_waited_for():
    done = []
    wait = Here().begin([1, 2], lambda item: done.append(item) or item * 10)
    assert done == []
    assert wait() == [10, 20]


def test_a_folder_without_a_chat_template_is_refused(tmp_path):
    folder = write_stand_in(tmp_path)
    for path in folder.glob("chat_template*"):
        path.unlink()
    with pytest.raises(WeightsError, match="has no chat template"):
        processor_of(str(folder))
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsError, match="cannot be loaded"):
        processor_of(str(folder))


def test_an_older_processor_is_completed_and_a_whole_one_left_alone():
    vision = SimpleNamespace(patch_size=14)
    model = SimpleNamespace(config=SimpleNamespace(vision_config=vision, vision_feature_select_strategy="default"))
    old, whole = SimpleNamespace(patch_size=None), SimpleNamespace(patch_size=7)
    complete_processor(old, model)
    complete_processor(whole, model)
    assert (old.patch_size, old.num_additional_image_tokens, vars(whole)) == (14, 1, {"patch_size": 7})


def test_words_without_special_tokens_stay_as_they_are(tmp_path):
    processor = processor_of(str(write_stand_in(tmp_path)))
    text = "A café <b>bold</b>\nand 3 < 4 > 2"
    assert harmless(processor, text) == text
    assert harmless(processor, "a<image>b</s>") == "a< image>b< /s>"


def test_added_tokens_that_are_not_marked_special_are_broken_too_but_for_plain_words(tmp_path):
    processor = processor_of.__wrapped__(str(write_stand_in(tmp_path)))
    processor.tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("sunset")])
    processor.image_token = "[IMG]"  # in no vocabulary: the processor itself replaces it
    text = harmless(processor, "a<tool_call> sunset [IMG]")
    assert text == "a< tool_call> sunset [ IMG]"
    names = processor.tokenizer.convert_ids_to_tokens(processor.tokenizer(text, add_special_tokens=False)["input_ids"])
    assert "<tool_call>" not in names
