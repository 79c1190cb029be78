"""Tiny random backbones in their ecosystems' own formats, for tests: one function a kind of folder."""

import json
from pathlib import Path

WORDS = "what colour is the kettle ? red blue green a an of on in it and vase tree beach hello there yes no image"
TEXTS = [f"{a} {b} {c}" for a in WORDS.split() for b in WORDS.split()[:6] for c in WORDS.split()[6:12]]
WIDTH = 32
FAMILIES = ("llama", "gpt2", "opt", "qwen2", "qwen3", "mistral")
OTHERS = ("gemma2", "cohere", "granite")  # their heads do more than a linear layer: they cap or scale the logits


def tokenizer(specials: dict, template: str | None = None, **settings):
    from vikdf.backbones import tokenizer as tokenizers

    return tokenizers.train(TEXTS, 400, specials, template=template, **settings)


def write_clip(folder: Path, seed: int = 0, width: int = WIDTH, layers: int = 2) -> Path:
    """ViT patch 12 on 48 px, context 20, as the demo's but narrower; `layers` of the vision tower."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    specials = {"pad_token": "<pad>", "bos_token": "<start>", "eos_token": "<end>"}
    made = tokenizer(specials, "<start> $A <end>", model_max_length=20)
    made.save_pretrained(folder)
    vision = {"image_size": 48, "patch_size": 12, "width": width, "layers": layers, "head_width": 16}
    text = {"context_length": 20, "vocab_size": len(made), "width": width, "heads": 2, "layers": 2}
    text["hf_tokenizer_name"] = "."  # the tokenizer lies in the same folder
    config = {"embed_dim": width, "vision_cfg": vision, "text_cfg": text}
    squash = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": squash}))
    torch.manual_seed(seed)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder


def write_bert(folder: Path, seed: int = 0, family: str = "bert", **changes) -> Path:
    import torch
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(seed)
    shape = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 4 * WIDTH}
    AutoModel.from_config(AutoConfig.for_model(family, vocab_size=100, **shape | changes)).save_pretrained(folder)
    return folder


def write_llm(folder: Path, family: str = "llama", seed: int = 0, **changes) -> Path:
    """A causal LM with a tokenizer. llama, qwen2 and qwen3 have a chat template, mistral one of the [INST] kind; gpt2 and
    opt have none, and gpt2 one token for start and end. mistral's window is shorter than the rows of the tests."""
    import torch
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import AutoConfig, AutoModelForCausalLM

    specials = {"pad_token": "<|pad|>", "bos_token": "<|start|>", "eos_token": "<|end|>"}
    if family == "gpt2":
        specials = {"eos_token": "<|end|>"}
    roles = ["<|user|>", "<|assistant|>"]
    made = tokenizer(specials | ({"extra_special_tokens": roles} if family == "llama" else {}))
    if family.startswith("qwen"):  # whose tokenizers put no space before a text
        made.backend_tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    if family == "qwen3":
        made.add_tokens(["<think>", "</think>"])  # tokens of their own, but not special ones: as in Qwen3
    made.chat_template = TEMPLATES.get(family)
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 256}
    whole = sizes | {"intermediate_size": 64, "num_key_value_heads": 1}
    extra = {
        "qwen3": whole | {"head_dim": 16},
        "mistral": whole | {"sliding_window": 8},
        "gemma2": whole | {"head_dim": 16, "final_logit_softcapping": 2.0},
        "cohere": whole | {"logit_scale": 0.3},
        "granite": whole | {"logits_scaling": 3.0, "embedding_multiplier": 2.0},
        "gpt2": {"n_embd": WIDTH, "n_layer": 2, "n_head": 2, "n_positions": 256},
        "opt": sizes | {"ffn_dim": 64, "word_embed_proj_dim": 16},
    }.get(family, whole)
    ids = {"pad_token_id": made.pad_token_id, "bos_token_id": made.bos_token_id, "eos_token_id": made.eos_token_id}
    tied = family == "qwen3"  # as the small ones of the family
    config = AutoConfig.for_model(family, vocab_size=len(made), tie_word_embeddings=tied, **extra | changes, **ids)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.2)  # wide enough that words and knowledge change the answer
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


CHATML = "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|end|>\\n' }}"
TEMPLATES = {
    # with a system message of its own, as Qwen2.5
    "qwen2": "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nhello there<|end|>\\n' }}{% endif %}"
    "{% for m in messages %}"
    + CHATML
    + "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    # thoughts stand before the last answer, and are left out of earlier ones, as Qwen3
    "qwen3": "{% for m in messages %}{% if m['role'] == 'assistant' and loop.last %}"
    "{{ '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' + m['content'].lstrip('\\n') + '<|end|>\\n' }}"
    "{% else %}" + CHATML + "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}",
    "llama": "<|start|>{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "mistral": "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate, beginning with user') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] | trim + eos_token }}{% endif %}{% endfor %}",
}


def write_hf_clip(folder: Path, seed: int = 0) -> Path:
    """A transformers CLIP folder, 24 px, patch 12."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    specials = {"pad_token": "<pad>", "bos_token": "<start>", "eos_token": "<end>"}
    made = tokenizer(specials, "<start> $A <end>", model_max_length=20)
    made.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}).save_pretrained(folder)
    tower = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    ids = {"bos_token_id": made.bos_token_id, "eos_token_id": made.eos_token_id, "pad_token_id": made.pad_token_id}
    text = tower | ids | {"vocab_size": len(made), "max_position_embeddings": 20}
    torch.manual_seed(seed)
    vision = tower | {"image_size": 24, "patch_size": 12}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)).save_pretrained(folder)
    return folder
