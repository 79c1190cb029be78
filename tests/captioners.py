"""Tiny random captioners, in the form in which each kind is published: one function a kind of folder."""

from pathlib import Path

import checkpoints

WIDTH, PIXELS = 32, 48
SPECIALS = {"pad_token": "<pad>", "bos_token": "<start>", "eos_token": "<end>"}
SIZES = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = SIZES | {"image_size": PIXELS, "patch_size": 12}
SIDE = {"height": PIXELS, "width": PIXELS}


def _tokenizer(first: str | None = None, **more):
    made = checkpoints.tokenizer(SPECIALS | more, first)
    ids = {"pad_token_id": made.pad_token_id, "bos_token_id": made.bos_token_id, "eos_token_id": made.eos_token_id}
    return made, ids | {"vocab_size": len(made)}


def _save(folder: Path, model, tokenizer, processor) -> Path:
    """Weights wide enough that pictures change what is said."""
    import torch

    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.2)
    for part in (model, tokenizer, processor):
        part.save_pretrained(folder)
    return folder


def write_blip(folder: Path) -> Path:
    """As BLIP: one processor_config.json for both, and a decoder that ends at its separator."""
    import torch

    from vikdf.backbones import captioner

    torch.manual_seed(0)
    processor = captioner.make_processor(checkpoints.TEXTS, 400, PIXELS)
    model = captioner.make_model(processor.tokenizer, PIXELS, 12, WIDTH, 2, 2)
    return _save(folder, model, processor.tokenizer, processor)


def write_blip2(folder: Path, llm: str = "opt", image_token: bool = True) -> Path:
    """As BLIP-2: four queries, whose places in the text are the image token's; the LLM is an OPT or a T5."""
    import torch
    from transformers import Blip2Config, Blip2ForConditionalGeneration, BlipImageProcessor

    torch.manual_seed(0)
    made, ids = _tokenizer("<start> $A" if llm == "opt" else "$A <end>", extra_special_tokens=["<image>"])
    opt = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 64}
    opt |= {"word_embed_proj_dim": WIDTH, "max_position_embeddings": 64}
    t5 = {"d_model": WIDTH, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    t5 |= {"decoder_start_token_id": made.pad_token_id}
    config = Blip2Config(
        vision_config=VISION,
        qformer_config=SIZES | {"encoder_hidden_size": WIDTH, "vocab_size": 100},
        text_config={"model_type": llm} | {"opt": opt, "t5": t5}[llm] | ids,
        num_query_tokens=4,
        image_token_index=made.convert_tokens_to_ids("<image>") if image_token else None,
    )
    return _save(folder, Blip2ForConditionalGeneration(config), made, BlipImageProcessor(size=SIDE))


def write_git(folder: Path) -> Path:
    """As GIT: a CLIP image processor, and one decoder that reads patches and words in a row."""
    import torch
    from transformers import CLIPImageProcessor, GitConfig, GitForCausalLM

    torch.manual_seed(0)
    made, ids = _tokenizer()
    config = GitConfig(vision_config=VISION, max_position_embeddings=64, **SIZES, **ids)
    processor = CLIPImageProcessor(size={"shortest_edge": PIXELS}, crop_size=SIDE)
    return _save(folder, GitForCausalLM(config), made, processor)


def write_vit_gpt2(folder: Path) -> Path:
    """As the ViT with a GPT-2: no file says what belongs together, and the ViT's pooler, which nothing reads, is left out."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import GPT2Config, VisionEncoderDecoderConfig, ViTConfig, ViTImageProcessor
    from transformers import VisionEncoderDecoderModel as Model

    torch.manual_seed(0)
    made, ids = _tokenizer()
    decoder = GPT2Config(n_embd=WIDTH, n_layer=2, n_head=2, n_positions=64, **ids)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**VISION), decoder)
    model = Model(config)
    model.generation_config.decoder_start_token_id = made.bos_token_id
    _save(folder, model, made, ViTImageProcessor(size=SIDE))
    weights = load_file(folder / "model.safetensors")
    left = {name: value for name, value in weights.items() if ".pooler." not in name}
    assert len(left) < len(weights)
    save_file(left, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_blip2_t5(folder: Path) -> Path:
    return write_blip2(folder, "t5")


KINDS = {
    "blip": write_blip,
    "blip-2 with OPT": write_blip2,
    "blip-2 with T5": write_blip2_t5,
    "git": write_git,
    "ViT with GPT-2": write_vit_gpt2,
}
