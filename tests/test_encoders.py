"""Any CLIP by its folder: both loaders against plain numpy and stored numbers; what contradicts itself is refused."""

import json

import checkpoints
import numpy as np
import plain_clip
import pytest
import torch
from torch import nn

from vikdf.backbones import openclip
from vikdf.model.encoders import CLIP

KINDS = pytest.mark.parametrize("kind", ["gelu", "quick_gelu"])
LOADERS = pytest.mark.parametrize("loader", ["open_clip", "transformers"])


@pytest.fixture(scope="module")
def clip(backbones):
    return CLIP.load(backbones["clip"])


def write(folder, loader: str, kind: str):
    """The weights of plain_clip as a folder of one of the two ecosystems."""
    return {"open_clip": write_open_clip, "transformers": write_transformers, "name": write_named}[loader](folder, kind)


def tokenizer(folder):
    specials = {"pad_token": "<pad>", "bos_token": "<start>", "eos_token": "<end>"}
    made = checkpoints.tokenizer(specials, "<start> $A <end>", model_max_length=plain_clip.CONTEXT)
    made.save_pretrained(folder)
    return made


def tensors(weights: dict) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(value, order="C")) for name, value in weights.items()}


PREPARED = {"mean": plain_clip.MEAN, "std": plain_clip.STD, "interpolation": "bicubic", "resize_mode": "shortest"}


def architecture(kind: str) -> dict:
    """The sizes of plain_clip in open_clip's words."""
    p = plain_clip
    both = {"width": p.WIDTH, "layers": p.LAYERS}
    vision = both | {"image_size": p.SIDE, "patch_size": p.PATCH, "head_width": p.WIDTH // p.HEADS}
    text = both | {"context_length": p.CONTEXT, "vocab_size": p.VOCABULARY, "heads": p.HEADS}
    return {"embed_dim": p.JOINT, "quick_gelu": kind == "quick_gelu", "vision_cfg": vision, "text_cfg": text}


def write_open_clip(folder, kind):
    from safetensors.torch import save_file

    tokenizer(folder)
    model = architecture(kind)
    model["text_cfg"]["hf_tokenizer_name"] = "."
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": PREPARED}))
    save_file(tensors(plain_clip.weights()), folder / "open_clip_model.safetensors")
    return folder


def write_named(folder, kind):
    """As backbones makes it of a name that open_clip knows and a file of weights."""
    import open_clip
    from safetensors.torch import save_file

    (folder / f"plain-{kind}.json").write_text(json.dumps(architecture(kind)))
    open_clip.add_model_config(folder / f"plain-{kind}.json")
    save_file(tensors(plain_clip.weights()), folder / "weights.safetensors")
    made = folder / "made"
    made.mkdir()
    openclip.make(name=f"plain-{kind}", path=folder / "weights.safetensors", preprocess=PREPARED, output=made)
    return made


def write_transformers(folder, kind):
    from safetensors.torch import save_file
    from transformers import CLIPConfig, CLIPImageProcessor

    p, made = plain_clip, tokenizer(folder)
    side = {"height": p.SIDE, "width": p.SIDE}
    CLIPImageProcessor(
        size={"shortest_edge": p.SIDE}, crop_size=side, image_mean=p.MEAN, image_std=p.STD
    ).save_pretrained(folder)
    tower = {"hidden_size": p.WIDTH, "num_hidden_layers": p.LAYERS, "num_attention_heads": p.HEADS}
    tower |= {"intermediate_size": 4 * p.WIDTH, "hidden_act": kind}
    ids = {"bos_token_id": made.bos_token_id, "eos_token_id": made.eos_token_id, "pad_token_id": made.pad_token_id}
    text = tower | ids | {"vocab_size": p.VOCABULARY, "max_position_embeddings": p.CONTEXT}
    vision = tower | {"image_size": p.SIDE, "patch_size": p.PATCH}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=p.JOINT, architectures=["CLIPModel"])
    config.save_pretrained(folder)
    save_file(tensors(p.transformers_names(p.weights())), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@KINDS
def test_plain_numpy_still_gives_the_stored_numbers(kind):
    stored = json.loads(plain_clip.GOLDEN.read_text())[kind]
    for name, x in plain_clip.vectors(kind).items():
        np.testing.assert_allclose(x, stored[name], atol=2e-6)


@KINDS
@pytest.mark.parametrize("loader", ["open_clip", "transformers", "name"])
def test_a_loader_gives_the_stored_vectors(tmp_path, monkeypatch, loader, kind):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # put back afterwards: who makes a folder of a name lifts it
    clip, stored = CLIP.load(write(tmp_path, loader, kind)), json.loads(plain_clip.GOLDEN.read_text())[kind]
    text, image = clip.states(torch.from_numpy(plain_clip.TOKENS)), clip.image(torch.from_numpy(plain_clip.pictures()))
    torch.testing.assert_close(text, torch.tensor(stored["text"]), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(image, torch.tensor(stored["image"]), atol=2e-5, rtol=1e-5)


def test_the_two_activations_give_other_vectors():
    stored = json.loads(plain_clip.GOLDEN.read_text())
    for name in ("text", "image"):
        assert np.abs(np.subtract(stored["gelu"][name], stored["quick_gelu"][name])).max() > 1e-3


@LOADERS
def test_pictures_are_prepared_with_the_folders_own_mean_and_spread(tmp_path, loader):
    from PIL import Image

    clip = CLIP.load(write(tmp_path, loader, "gelu"))
    shades = (np.arange(plain_clip.SIDE**2 * 3) % 256).astype(np.uint8).reshape(plain_clip.SIDE, plain_clip.SIDE, 3)
    expected = (shades / 255 - plain_clip.MEAN) / plain_clip.STD
    torch.testing.assert_close(
        clip.preprocess(Image.fromarray(shades)), torch.from_numpy(expected).permute(2, 0, 1).float()
    )


def test_a_folder_may_be_given_as_open_clip_writes_it(tmp_path):
    assert CLIP.load(f"local-dir:{write(tmp_path, 'open_clip', 'gelu')}").folder == tmp_path


@LOADERS
def test_a_clip_in_half_precision_takes_full_precision_pictures(tmp_path, loader):
    folder = write(tmp_path, loader, "quick_gelu")
    half, full = CLIP.load(folder, dtype=torch.bfloat16), CLIP.load(folder)
    tokens, pixels = torch.from_numpy(plain_clip.TOKENS), torch.from_numpy(plain_clip.pictures())
    for ours, theirs in ((half.states(tokens), full.states(tokens)), (half.image(pixels), full.image(pixels))):
        assert ours.dtype == torch.bfloat16
        torch.testing.assert_close(ours.float(), theirs, atol=0.2, rtol=0.1)


def change(path, *keys, to) -> None:
    """Sets one key of a JSON file; to=None takes it out."""
    whole = part = json.loads(path.read_text())
    for key in keys[:-1]:
        part = part[key]
    part.pop(keys[-1], None)
    if to is not None:
        part[keys[-1]] = to
    path.write_text(json.dumps(whole))


WRONG_OPEN_CLIP = {
    "no preparation": (("preprocess_cfg",), None, "no mean and no std"),
    "no spread": (("preprocess_cfg", "std"), None, "no std"),
    "another side": (("preprocess_cfg", "size"), 24, "size 24.* image_size 12"),
    "an averaging tower": (("model_cfg", "vision_cfg", "pool_type"), "avg", "no ViT that is read at its class token"),
    "other weights": (("model_cfg", "vision_cfg", "layers"), 3, "do not fit"),
    "a thousand million layers": (("model_cfg", "text_cfg", "layers"), 10**9, "layers 1000000000, but its weights are"),
    "a width without end": (
        ("model_cfg", "text_cfg", "vocab_size"),
        10**12,
        "describes a model of [0-9]+ numbers, but",
    ),
    "an unknown word": (("model_cfg", "text_cfg", "colour"), "red", "do not fit"),
    "no model": (("model_cfg",), None, "describes no model: expected model_cfg"),
    "no image tower": (("model_cfg", "vision_cfg"), None, "describes no model: expected model_cfg"),
}


@pytest.mark.parametrize("fault", WRONG_OPEN_CLIP)
def test_an_open_clip_folder_that_contradicts_itself_is_refused(tmp_path, fault):
    keys, to, said = WRONG_OPEN_CLIP[fault]
    change(write_open_clip(tmp_path, "gelu") / "open_clip_config.json", *keys, to=to)
    with pytest.raises(ValueError, match=said):
        CLIP.load(tmp_path)


def test_open_clip_weights_that_are_damaged_are_named(tmp_path):
    path = write_open_clip(tmp_path, "gelu") / "open_clip_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"the weights in {tmp_path} do not fit"):
        CLIP.load(tmp_path)


def test_an_open_clip_config_that_is_a_list_is_refused(tmp_path):
    (write_open_clip(tmp_path, "gelu") / "open_clip_config.json").write_text("[]")
    with pytest.raises(ValueError, match="open_clip_config.json describes no model: expected model_cfg"):
        CLIP.load(tmp_path)


def test_an_open_clip_folder_without_weights_is_refused(tmp_path):
    (write_open_clip(tmp_path, "gelu") / "open_clip_model.safetensors").unlink()
    with pytest.raises(ValueError, match="holds no open_clip_model.safetensors"):
        CLIP.load(tmp_path)


@pytest.mark.parametrize("other", ["gelu", "quick_gelu"])
def test_a_folder_for_both_ecosystems_must_name_one_activation(tmp_path, other):
    write_transformers(write_open_clip(tmp_path, "quick_gelu"), other)
    if other == "quick_gelu":
        assert type(CLIP.load(tmp_path).towers).__name__ == "OpenClip"
    else:
        with pytest.raises(ValueError, match="quick_gelu true, config.json says hidden_act 'gelu'"):
            CLIP.load(tmp_path)


def test_a_folder_for_both_with_weights_for_one_is_read_by_that_one(tmp_path):
    (write_transformers(write_open_clip(tmp_path, "gelu"), "gelu") / "open_clip_model.safetensors").unlink()
    assert type(CLIP.load(tmp_path).towers).__name__ == "TransformersClip"


WRONG_TRANSFORMERS = {
    "two activations": ("config.json", ("text_config", "hidden_act"), "gelu", "'gelu' for text and 'quick_gelu'"),
    "another side": ("preprocessor_config.json", ("crop_size",), {"height": 24, "width": 24}, "reads 12"),
    "no mean": ("preprocessor_config.json", ("image_mean",), None, "names no image_mean"),
    "another model": ("config.json", ("model_type",), "siglip", "'siglip', expected 'clip'; choose a CLIP"),
    "weights that are not there": ("config.json", ("text_config", "num_hidden_layers"), 3, "lacks 16 weights"),
}


@pytest.mark.parametrize("fault", WRONG_TRANSFORMERS)
def test_a_transformers_clip_that_contradicts_itself_is_refused(tmp_path, fault):
    file, keys, to, said = WRONG_TRANSFORMERS[fault]
    change(write_transformers(tmp_path, "quick_gelu") / file, *keys, to=to)
    with pytest.raises(ValueError, match=said):
        CLIP.load(tmp_path)


def test_clip_pooled_vectors_equal_open_clips_own(clip):
    texts = ["a red kettle", "the blue vase on the beach"]
    pixels = torch.randn(2, 3, 48, 48)
    tokens = clip.towers.tokenizer(texts)
    clip.model.visual.output_tokens = False
    image = clip.model.encode_image(pixels, normalize=True)
    clip.model.visual.output_tokens = True
    torch.testing.assert_close(clip.embed_image(pixels), image)
    torch.testing.assert_close(clip.embed_text(clip.tokenize(texts)), clip.model.encode_text(tokens, normalize=True))


def test_a_transformers_clip_folder_gives_its_own_pooled_vectors(tmp_path):
    clip = CLIP.load(checkpoints.write_hf_clip(tmp_path / "clip"))
    tokens, pixels = clip.tokenize(["a red kettle", "hello"]), torch.randn(2, 3, 24, 24)
    image = clip.model.get_image_features(pixel_values=pixels).pooler_output
    text = clip.model.get_text_features(input_ids=tokens).pooler_output
    torch.testing.assert_close(clip.embed_image(pixels), nn.functional.normalize(image, dim=-1))
    torch.testing.assert_close(clip.embed_text(tokens), nn.functional.normalize(text, dim=-1))
    assert clip.image(pixels).shape == (2, 5, 32)


def test_the_states_of_a_text_do_not_depend_on_its_neighbours(clip):
    alone, _ = clip.text(clip.tokenize(["a red kettle"]))
    among, mask = clip.text(clip.tokenize(["a red kettle", "the blue vase on the beach and a tree"]))
    assert mask[0].sum() == alone.shape[1] < among.shape[1]
    torch.testing.assert_close(among[0, : alone.shape[1]], alone[0])


def test_a_long_caption_keeps_its_start_and_a_long_dialogue_its_end(clip):
    words = ["red"] * 30 + ["blue"] * 30
    red, blue = (clip.tokenize([f"{word} {word}"])[0, 2].item() for word in ("red", "blue"))
    start, end = clip.tokenize([" ".join(words)])[0], clip.tokenize([" ".join(words)], keep="end")[0]
    assert start[0] == end[0] == clip.start_of_text and start[-1] == end[-1] == clip.end_of_text
    assert start[2] == red and blue not in start
    assert end[-2] == blue and red not in end
