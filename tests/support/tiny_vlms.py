"""Tiny vision-language models of random numbers, written as folders that `from_pretrained` loads, offline."""

from pathlib import Path

SIDE_PX, PATCH_PX = 32, 8
SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<image>", "<video>")
QWEN = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
KINDS = ("llava", "llava_next", "llava_onevision", "qwen2_vl")
ENDS = {"llava": 2.5, "llava_next": 2.5, "llava_onevision": 1.2, "qwen2_vl": 2.0}
"""By how much the ending token is made likelier, so that answers end at different places."""
CHAT = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: {% else %}ASSISTANT: {% endif %}{% for item"
    " in message['content'] %}{% if item['type'] == 'image' %}IMAGE\n{% else %}{{ item['text'] }}{% endif %}{% endfor"
    " %} {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def write_tiny(kind, folder: Path) -> Path:
    """Write a model of one of KINDS into `folder` and return it."""
    import torch

    torch.manual_seed(KINDS.index(kind))
    tokenizer = _tokenizer()
    model, processor = _BUILDERS[kind](tokenizer)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn_like(parameter) * (0.3 if "embed" in name else parameter.shape[-1] ** -0.5))
        model.get_output_embeddings().weight[2] *= ENDS[kind]
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 2, 3
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {name: number for number, name in enumerate((*SPECIAL, *QWEN, *letters))}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>", "video_token": "<video>"},
        additional_special_tokens=list(QWEN),
        padding_side="left",
    )


def _text(kind, tokenizer, **more):
    from transformers import LlamaConfig, Qwen2Config

    made = Qwen2Config if kind == "qwen2" else LlamaConfig
    return made(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
        **more,
    )


def _clip():
    from transformers import CLIPVisionConfig

    return CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        image_size=SIDE_PX,
        patch_size=PATCH_PX,
        projection_dim=32,
        num_hidden_layers=2,
        num_attention_heads=4,
    )


def _llava(tokenizer):
    from transformers import CLIPImageProcessor, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    config = LlavaConfig(
        vision_config=_clip(), text_config=_text("llama", tokenizer), image_token_index=4, image_seq_length=16
    )
    pixels = CLIPImageProcessor(size={"shortest_edge": SIDE_PX}, crop_size={"height": SIDE_PX, "width": SIDE_PX})
    processor = LlavaProcessor(
        pixels,
        tokenizer,
        patch_size=PATCH_PX,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT.replace("IMAGE", "<image>"),
    )
    return LlavaForConditionalGeneration(config), processor


PINPOINTS = [[32, 64], [64, 32], [64, 64]]


def _llava_next(tokenizer):
    from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration, LlavaNextProcessor
    from transformers.models.llava_next.image_processing_llava_next import LlavaNextImageProcessor

    config = LlavaNextConfig(
        vision_config=_clip(),
        text_config=_text("llama", tokenizer),
        image_token_index=4,
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=16,
    )
    pixels = LlavaNextImageProcessor(
        size={"shortest_edge": SIDE_PX},
        crop_size={"height": SIDE_PX, "width": SIDE_PX},
        image_grid_pinpoints=PINPOINTS,
    )
    processor = LlavaNextProcessor(
        pixels,
        tokenizer,
        patch_size=PATCH_PX,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT.replace("IMAGE", "<image>"),
    )
    return LlavaNextForConditionalGeneration(config), processor


def _llava_onevision(tokenizer):
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
        SiglipVisionConfig,
    )
    from transformers.models.llava_onevision.image_processing_llava_onevision import LlavaOnevisionImageProcessor

    vision = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        image_size=SIDE_PX,
        patch_size=PATCH_PX,
        num_hidden_layers=2,
        num_attention_heads=4,
        vision_use_head=False,
    )
    config = LlavaOnevisionConfig(
        vision_config=vision,
        text_config=_text("qwen2", tokenizer),
        image_token_index=4,
        video_token_index=5,
        image_grid_pinpoints=PINPOINTS,
    )
    square = {"height": SIDE_PX, "width": SIDE_PX}
    pixels = LlavaOnevisionImageProcessor(size=square, image_grid_pinpoints=PINPOINTS)
    processor = LlavaOnevisionProcessor(
        pixels,
        tokenizer,
        LlavaOnevisionVideoProcessor(size=square),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=CHAT.replace("IMAGE", "<image>"),
    )
    return LlavaOnevisionForConditionalGeneration(config), processor


def _qwen2_vl(tokenizer):
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor, Qwen2VLVideoProcessor
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

    ids = dict(zip(QWEN, tokenizer.convert_tokens_to_ids(list(QWEN)), strict=True))
    text = _text("qwen2", tokenizer).to_dict()
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]}
    config = Qwen2VLConfig(
        text_config={**text, "model_type": "qwen2_vl_text"},
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 64,
            "num_heads": 4,
            "patch_size": PATCH_PX,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "mlp_ratio": 2,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    kinds = {"patch_size": PATCH_PX, "merge_size": 2, "temporal_patch_size": 2}
    size = {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
    tokenizer.image_token, tokenizer.video_token = "<|image_pad|>", "<|video_pad|>"
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessor(size=size, **kinds),
        tokenizer,
        Qwen2VLVideoProcessor(size=size, **kinds),
        chat_template=CHAT.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"),
    )
    return Qwen2VLForConditionalGeneration(config), processor


_BUILDERS = {
    "llava": _llava,
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "qwen2_vl": _qwen2_vl,
}
