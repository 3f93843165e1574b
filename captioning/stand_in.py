"""Write a tiny LLaVA of seeded random numbers in the real folder format, for runs without real weights."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerBase

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<image>")
ONSETS, VOWELS, ENDINGS = "bdfgklmnprst", "aeiou", ("ru", "vo")
"""Parts of made-up words: a stand-in's captions must not read as if they described anything."""
SIDE_PX, PATCH_PX = 32, 8
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: {% else %}ASSISTANT: {% endif %}{% for item"
    " in message['content'] %}{% if item['type'] == 'image' %}<image>\n{% else %}{{ item['text'] }}{% endif %}{% endfor"
    " %} {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
"""Puts the words in the order in which LLaVA 1.5 was trained: USER: <image> newline, question, ASSISTANT:."""


def write_stand_in(folder: Path) -> Path:
    """Write config, safetensors, tokenizer and processor into `folder` and return it; the same bytes each time."""
    tokenizer = _tokenizer()
    _model(tokenizer).save_pretrained(folder)
    _processor(tokenizer).save_pretrained(folder)
    return folder


def _words() -> list[str]:
    """Return 120 made-up words with a leading space (Ġ, as byte-level tokenizers write it), and the full stop."""
    return [f"Ġ{onset}{vowel}{ending}" for onset in ONSETS for vowel in VOWELS for ending in ENDINGS] + ["."]


def _tokenizer() -> "PreTrainedTokenizerBase":
    """Return a byte-level tokenizer: 256 bytes so that any prompt can be read, and the made-up words to answer with."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*SPECIAL, *letters, *(word for word in _words() if word not in letters)]
    vocabulary = {name: number for number, name in enumerate(names)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
    )


def _processor(tokenizer: "PreTrainedTokenizerBase") -> "LlavaProcessor":
    from transformers import CLIPImageProcessor, LlavaProcessor

    pixels = CLIPImageProcessor(size={"shortest_edge": SIDE_PX}, crop_size={"height": SIDE_PX, "width": SIDE_PX})
    return LlavaProcessor(
        pixels,
        tokenizer,
        patch_size=PATCH_PX,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


def _model(tokenizer: "PreTrainedTokenizerBase") -> "LlavaForConditionalGeneration":
    """Return the model with every parameter drawn from SHAKE-256, so that no library's generator decides its bytes."""
    import torch
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    small: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 4}
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, image_size=SIDE_PX, patch_size=PATCH_PX, projection_dim=32, **small
    )
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        max_position_embeddings=1024,
        **small,
        **special,
    )
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=4, image_seq_length=(SIDE_PX // PATCH_PX) ** 2
    )
    model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(_draw(name, parameter))
        _silence_bytes(model.lm_head.weight, tokenizer)
    return model.eval()


def _draw(name: str, like: "torch.Tensor") -> "torch.Tensor":
    """Return numbers uniform in ±sqrt(3 / fan-in), so of variance 1 / fan-in; a norm's scale is one and a bias zero."""
    import numpy as np
    import torch

    if name.endswith("bias"):
        return torch.zeros_like(like)
    if like.ndim == 1 and "norm" in name:
        return torch.ones_like(like)
    bits = np.frombuffer(hashlib.shake_256(f"tessera llava stand-in 0 {name}".encode()).digest(4 * like.numel()), "<u4")
    uniform = bits.astype(np.float64) / 2**31 - 1
    scale = (3 / (like[0] if like.ndim > 1 else like).numel()) ** 0.5
    return torch.from_numpy((uniform * scale).astype(np.float32)).reshape(like.shape)


def _silence_bytes(head_VD: "torch.Tensor", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Leave an output only to the made-up words and the end of text: bare bytes would be unreadable."""
    speaks = {*tokenizer.convert_tokens_to_ids(_words()), tokenizer.eos_token_id}
    for row in range(head_VD.shape[0]):
        if row not in speaks:
            head_VD[row] = 0
