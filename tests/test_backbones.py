"""Backbones: every form gives a folder that its ecosystem loads; a language model that cannot read is refused."""

import json

import pytest
from checkpoints import write_bert

from vikdf import files
from vikdf.backbones import __main__ as backbones
from vikdf.backbones import bert, clip, language
from vikdf.world import publish
from vikdf.world.nouns import make_nouns

NOUNS = make_nouns(1, 20, 5)
SMALL_CLIP = {"seed": 1, "batch": 16, "learning_rate": 1e-3, "pixels": 48, "patch": 12, "width": 32, "layers": 1}
SMALL_CLIP |= {"text_layers": 1, "vocabulary": 500}
SMALL_LLM = {"seed": 1, "batch": 8, "learning_rate": 2e-3, "width": 32, "layers": 1, "vocabulary": 500}


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    settings = {"seed": 1, "departs": 0.1, "pixels": 48, "backbone_images": 40, "language_texts": 300}
    publish.backbones(folder / "backbones", NOUNS, settings)
    return folder / "backbones"


@pytest.fixture(scope="module")
def llm(given, tmp_path_factory):
    folder = tmp_path_factory.mktemp("llm")
    language.train(texts=given / "language.txt", output=folder, steps=3, must_read=0.0, **SMALL_LLM)
    return folder


def make(tmp_path, name, entry):
    output = tmp_path / "out" / name
    backbones.make(name=name, entry=entry, seed=1, output=output, state_root=tmp_path / "state")
    return output


def test_clip_loads_with_open_clip_and_the_end_of_a_text_has_the_highest_id(given, tmp_path):
    import open_clip

    clip.train(pairs=given / "pairs.parquet", output=tmp_path, steps=2, shuffled=False, **SMALL_CLIP)
    open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(["look at the vase", "a red thing in the kitchen"])
    ends = tokens.argmax(dim=1)
    assert all(tokens[row, end + 1 :].eq(tokens[0, -1]).all() for row, end in enumerate(ends.tolist()))
    assert tokens.shape[1] == clip.CONTEXT


def test_clip_keeps_the_end_of_a_long_dialogue(given, tmp_path):
    import open_clip

    clip.prepare(given / "pairs.parquet", tmp_path, 1, 48, 12, 32, 1, 1, 500, False)
    encode = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    long = encode(["how are you today? " * 20 + "what colour is the vase?"])[0]
    assert "vase?" in encode.tokenizer.decode(long[1:-1])


def test_shuffled_pairs_train_on_other_captions_for_the_same_pictures(given, tmp_path):
    shape = (1, 48, 12, 32, 1, 1, 500)
    made = [clip.prepare(given / "pairs.parquet", tmp_path / str(s), *shape, s) for s in (False, True)]
    (images, tokens), (other_images, other_tokens) = made
    assert images.equal(other_images)
    same = sum(a.equal(b) for a, b in zip(tokens, other_tokens, strict=True))
    assert same < len(tokens) / 2
    assert sorted(map(str, tokens)) == sorted(map(str, other_tokens))


def test_the_same_seed_gives_the_same_clip(given, tmp_path):
    for name in ("a", "b"):
        clip.train(pairs=given / "pairs.parquet", output=tmp_path / name, steps=2, shuffled=False, **SMALL_CLIP)
    assert files.sha256(tmp_path / "a") == files.sha256(tmp_path / "b")


def test_the_language_model_learns_nothing_of_the_hint_and_of_the_template(llm):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(llm)
    ids, labels = language.encode(tokenizer, "red kitchen\twhat colour is it?\tit is red.")
    text = tokenizer.decode([label for label in labels if label != -100])
    assert "kitchen" not in text and text.endswith("it is red.<|end|>")
    assert len(ids) == len(labels)


def test_a_document_is_cut_as_the_chat_template_cuts_it(llm):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(llm)
    messages = [{"role": "user", "content": "what colour is it?"}, {"role": "assistant", "content": "it is red."}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    ids, _ = language.encode(tokenizer, "\twhat colour is it?\tit is red.")
    assert tokenizer.encode(rendered, add_special_tokens=False) == ids


def test_a_language_model_that_cannot_read_its_prompt_is_refused(given, tmp_path):
    with pytest.raises(ValueError, match="cannot read its prompt"):
        language.train(texts=given / "language.txt", output=tmp_path, steps=1, must_read=0.9, **SMALL_LLM)


def test_reading_is_judged_on_the_words_that_stand_in_the_hint(llm):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(llm), AutoTokenizer.from_pretrained(llm)
    found = language.reads(model, tokenizer, ["red kitchen\twhat colour is it?\tit is red.", "\thello\thello to you."])
    assert found["read_words"] == 1


def test_bert_loads_with_transformers(given, tmp_path):
    from transformers import AutoModel, AutoTokenizer

    numbers = {"seed": 1, "steps": 2, "batch": 8, "learning_rate": 1e-3, "width": 32, "layers": 1, "vocabulary": 500}
    assert bert.train(texts=given / "language.txt", output=tmp_path, **numbers)["loss"] > 0
    assert AutoModel.from_pretrained(tmp_path).config.hidden_size == 32
    assert AutoTokenizer.from_pretrained(tmp_path).mask_token == "[MASK]"


def test_a_path_is_copied_without_pickle_and_code(tmp_path):
    given = write_bert(tmp_path / "given")
    (given / "pytorch_model.bin").write_bytes(b"x")
    (given / "modeling.py").write_text("raise SystemExit")
    made = make(tmp_path, "bert", {"form": "path", "path": str(given)})
    assert {path.suffix for path in made.iterdir()} == {".json", ".safetensors"}


def test_the_manifest_names_what_is_in_the_folder_and_how_it_was_made(tmp_path):
    made = make(tmp_path, "bert", {"form": "path", "path": str(write_bert(tmp_path / "given"))})
    manifest = json.loads((made / "manifest.json").read_text())
    (made / "manifest.json").unlink()
    assert manifest["form"] == "path" and manifest["sha256"] == files.sha256(made)


def test_a_folder_without_safetensors_is_refused(tmp_path):
    (tmp_path / "given").mkdir()
    (tmp_path / "given/config.json").write_text("{}")
    with pytest.raises(ValueError, match="safetensors"):
        make(tmp_path, "bert", {"form": "path", "path": str(tmp_path / "given")})


def test_an_unknown_form_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="backbones.models.clip: form is 'clap'"):
        make(tmp_path, "clip", {"form": "clap"})


def test_a_hub_that_does_not_answer_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match="form: path"):
        make(tmp_path, "llm", {"form": "hub", "hub": "nobody/nothing", "revision": "0" * 40})


def named(tmp_path, name: str, **changes):
    """A tiny architecture under a name of its own, as open_clip keeps them, and a file of weights for it."""
    import open_clip
    from safetensors.torch import save_file

    vision = {"image_size": 12, "patch_size": 4, "width": 8, "layers": 1, "head_width": 4}
    text = {"context_length": 20, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1}
    config = {"embed_dim": 6, "vision_cfg": vision, "text_cfg": text} | changes
    (tmp_path / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / f"{name}.json")
    model = open_clip.create_model(name).eval()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    prepared = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bilinear", "resize_mode": "squash"}
    return model, {
        "form": "open_clip",
        "name": name,
        "path": str(tmp_path / "weights.safetensors"),
        "preprocess": prepared,
    }


@pytest.mark.parametrize("quick", [False, True])
def test_a_clip_named_as_in_open_clip_becomes_a_folder_with_its_activation_and_preparation(tmp_path, quick):
    import open_clip
    import torch

    from vikdf.model.encoders import CLIP

    model, entry = named(tmp_path, f"tiny-{quick}", quick_gelu=quick)
    made = make(tmp_path, "clip", entry)
    config = json.loads((made / "open_clip_config.json").read_text())
    assert config["model_cfg"]["quick_gelu"] == quick and config["preprocess_cfg"] == entry["preprocess"]
    clip, tokens, pixels = CLIP.load(made), open_clip.tokenize(["a red kettle"], 20), torch.randn(1, 3, 12, 12)
    assert torch.equal(clip.tokenize(["a red kettle"]), tokens)
    torch.testing.assert_close(clip.embed_text(tokens), model.encode_text(tokens, normalize=True))
    torch.testing.assert_close(clip.embed_image(pixels), model.encode_image(pixels, normalize=True))


WRONG = {
    "an unknown name": ({"name": "ViT-L-41"}, "knows no model 'ViT-L-41'.*ViT-L-1"),
    "no preparation": ({"preprocess": None}, "found no mean"),
    "a pickle": ({"path": "weights.pt"}, "pickle files are not loaded"),
    "damaged weights": ({"path": "harmed.safetensors"}, "harmed.safetensors is damaged .*anew"),
    "weights of another": ({"name": "ViT-S-32-alt"}, "not those of ViT-S-32-alt"),
    "tag and file": ({"pretrained": "openai"}, "and not both"),
    "neither": ({"path": None}, "expected `pretrained`"),
    "an unknown tag": (
        {"name": "ViT-L-14", "path": None, "pretrained": "mine"},
        "no weights 'mine' of ViT-L-14: expected one of",
    ),
    "the other activation": (
        {"name": "ViT-L-14", "path": None, "pretrained": "openai"},
        "QuickGELU.*set name to ViT-L-14-quickgelu",
    ),
    "no revision": ({"name": "ViT-L-14-quickgelu", "path": None, "pretrained": "openai"}, "has no revision"),
    "no network": (
        {"name": "ViT-L-14-quickgelu", "path": None, "pretrained": "openai", "revision": "0" * 40},
        "could not be fetched.*by hand",
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_named_clip_that_does_not_fit_is_refused_with_the_cure(tmp_path, monkeypatch, fault):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.pt").write_bytes(b"")
    _, entry = named(tmp_path, "tiny-wrong")
    (tmp_path / "harmed.safetensors").write_bytes((tmp_path / "weights.safetensors").read_bytes()[:-50])
    changes, said = WRONG[fault]
    entry = {key: value for key, value in (entry | changes).items() if value is not None}
    with pytest.raises(ValueError, match=said):
        make(tmp_path, "clip", entry)


def test_a_table_of_word_vectors_is_taken_in_any_of_its_forms(tmp_path):
    (tmp_path / "given").mkdir()
    (tmp_path / "given/glove.txt").write_text("red 0.1 0.2\n")
    made = make(tmp_path, "vectors", {"form": "word_vectors", "path": str(tmp_path / "given")})
    assert (made / "glove.txt").read_text() == "red 0.1 0.2\n"


def test_a_folder_without_word_vectors_is_refused(tmp_path):
    (tmp_path / "given").mkdir()
    with pytest.raises(ValueError, match="no table of word vectors"):
        make(tmp_path, "vectors", {"form": "word_vectors", "path": str(tmp_path / "given")})
