"""Tiny random backbones in their ecosystems' own formats, for tests: one function a kind of folder."""

import json
from pathlib import Path

WORDS = "what colour is the kettle ? red blue green a an of on in it and vase tree beach hello there yes no image"
TEXTS = [f"{a} {b} {c}" for a in WORDS.split() for b in WORDS.split()[:6] for c in WORDS.split()[6:12]]
WIDTH = 32
FAMILIES = ("llama", "gpt2", "opt", "qwen2", "mistral")


def tokenizer(specials: dict, template: str | None = None, **settings):
    from vikdf.backbones import tokenizer as tokenizers

    return tokenizers.train(TEXTS, 400, specials, template=template, **settings)


def write_clip(folder: Path, seed: int = 0) -> Path:
    """ViT patch 12 on 48 px, context 20, as the demo's but narrower."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    specials = {"pad_token": "<pad>", "bos_token": "<start>", "eos_token": "<end>"}
    made = tokenizer(specials, "<start> $A <end>", model_max_length=20)
    made.save_pretrained(folder)
    vision = {"image_size": 48, "patch_size": 12, "width": WIDTH, "layers": 2, "head_width": 16}
    text = {"context_length": 20, "vocab_size": len(made), "width": WIDTH, "heads": 2, "layers": 2}
    text["hf_tokenizer_name"] = "."  # the tokenizer lies in the same folder
    config = {"embed_dim": WIDTH, "vision_cfg": vision, "text_cfg": text}
    squash = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": squash}))
    torch.manual_seed(seed)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder


def write_bert(folder: Path, seed: int = 0) -> Path:
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    shape = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 4 * WIDTH}
    BertModel(BertConfig(vocab_size=100, **shape)).save_pretrained(folder)
    return folder


def write_llm(folder: Path, family: str = "llama", seed: int = 0) -> Path:
    """A causal LM with a tokenizer; llama has a chat template, mistral one of the [INST] kind, the others none."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    specials = {"pad_token": "<|pad|>", "bos_token": "<|start|>", "eos_token": "<|end|>"}
    roles = ["<|user|>", "<|assistant|>"]
    made = tokenizer(specials | ({"extra_special_tokens": roles} if family == "llama" else {}))
    made.chat_template = TEMPLATES.get(family)
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 256}
    extra = {
        "gpt2": {"n_embd": WIDTH, "n_layer": 2, "n_head": 2, "n_positions": 256},
        "opt": sizes | {"ffn_dim": 64, "word_embed_proj_dim": 16},
    }.get(family, sizes | {"intermediate_size": 64, "num_key_value_heads": 1})
    ids = {"pad_token_id": made.pad_token_id, "bos_token_id": made.bos_token_id, "eos_token_id": made.eos_token_id}
    config = AutoConfig.for_model(family, vocab_size=len(made), tie_word_embeddings=False, **extra, **ids)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.2)  # wide enough that words and knowledge change the answer
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


TEMPLATES = {
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
