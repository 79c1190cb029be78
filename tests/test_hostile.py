"""Damaged and hostile folders: each is refused in one sentence that names the fault, and none runs code or fills the memory."""

import io
import json
import shutil
import sys
from pathlib import Path

import checkpoints
import pytest
from test_finetune import pretrained  # noqa: F401 - fixture
from test_pretrain import product, shards  # noqa: F401 - fixtures
from test_use import folders  # noqa: F401 - fixture

from vikdf import files
from vikdf.model import pretrained as parts
from vikdf.model.auto import VIKDF
from vikdf.model.backbone import LLM
from vikdf.model.encoders import CLIP
from vikdf.model.iqformer import IQFormer
from vikdf.model.vikdf import VIKDFForPretraining


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("part", ["clip", "llm"])
def test_one_changed_byte_in_a_frozen_part_is_an_error_that_names_part_and_file(folders, backbones, part, tmp_path):  # noqa: F811
    root = shutil.copytree(backbones["llm"].parent, tmp_path / "backbones")
    weights = next((root / part).glob("*.safetensors"))
    flip(weights)
    with pytest.raises(ValueError, match=f"is not the frozen part {part} .*{weights.name} is changed.*train anew"):
        VIKDF.from_pretrained(folders["tuned"][0], backbones=root)


def test_a_missing_file_and_a_new_one_of_a_frozen_part_are_named(folders, backbones, tmp_path):  # noqa: F811
    root = shutil.copytree(backbones["llm"].parent, tmp_path / "backbones")
    (root / "llm/chat_template.jinja").rename(root / "llm/other.jinja")
    with pytest.raises(ValueError, match="chat_template.jinja is missing, other.jinja is new"):
        VIKDF.from_pretrained(folders["tuned"][0], backbones=root)


def test_the_wrong_folder_for_a_frozen_part_is_refused(folders, backbones):  # noqa: F811
    with pytest.raises(ValueError, match="bert is not the frozen part clip"):
        VIKDF.from_pretrained(folders["tuned"][0], clip=backbones["bert"], llm=backbones["llm"])


def test_a_frozen_part_that_is_nowhere_is_named_with_where_it_was_looked_for(folders, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="needs the frozen part .*has data/backbones/.*backbones=FOLDER"):
        VIKDF.from_pretrained(folders["tuned"][0])
    with pytest.raises(ValueError, match=f"{tmp_path} has no folder 'clip'"):
        VIKDF.from_pretrained(folders["tuned"][0], backbones=tmp_path)
    with pytest.raises(ValueError, match="llm.*nowhere does not exist"):
        VIKDF.from_pretrained(folders["alone"][0], llm=tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt", "weights.pth"])
def test_a_pickle_file_in_place_of_safetensors_is_refused_by_name(folders, backbones, tmp_path, name):  # noqa: F811
    folder = shutil.copytree(folders["tuned"][0], tmp_path / "saved")
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(ValueError, match=f"{name}, a pickle file.*expected model.safetensors"):
        VIKDF.from_pretrained(folder, backbones=backbones["llm"].parent)


def test_folders_that_are_no_checkpoint_are_refused(backbones, tmp_path):
    with pytest.raises(ValueError, match="nowhere is no folder"):
        VIKDF.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no checkpoint"):
        VIKDF.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is that of a 'llama' model"):
        VIKDF.from_pretrained(backbones["llm"])
    with pytest.raises(ValueError, match="given 'device_map'"):
        VIKDF.from_pretrained(tmp_path, device_map="auto")


def change(path: Path, keys: str, value=None) -> None:
    """Sets the value at "a.b.c" of a JSON file; None for what is to be taken away."""
    whole = files.read_json(path)
    *way, last = keys.split(".")
    inside = whole
    for key in way:
        inside = inside[key]
    if value is None:
        del inside[last]
    else:
        inside[last] = value
    path.write_text(json.dumps(whole))


HUGE = 10**10
CONFIGS = {
    "frozen is missing": ("frozen", None, "no key 'frozen'"),
    "settings are missing": ("settings", None, "no key 'settings'"),
    "source is missing": ("source", None, "no key 'source'"),
    "tamim is missing": ("tamim", None, "no key 'tamim'"),
    "the frozen clip is missing": ("frozen.clip", None, "frozen has no key 'clip'"),
    "the files of a part are missing": ("frozen.llm.files", None, "frozen.llm has no key 'files'"),
    "frozen is a list": ("frozen", [], "has frozen .*type dict"),
    "a frozen part of no kind": ("frozen.evil", {}, "unknown key 'evil'"),
    "a folder that is a number": ("frozen.llm.folder", 3, "folder '3'.*type str"),
    "a folder further up": ("frozen.llm.folder", "../llm", "plain name"),
    "the folder above": ("frozen.llm.folder", "..", "plain name"),
    "a folder anywhere": ("frozen.llm.folder", "/tmp", "plain name"),
    "an unknown setting": ("settings.evil", 1, "unknown key 'evil'"),
    "a rank that is a text": ("settings.lora_rank", "x", "lora_rank 'x'.*type int"),
    "a rank that the weights have not": ("settings.lora_rank", HUGE, "lora_rank is 10000000000"),
    "a prompt that is a number": ("settings.describe", 3, "describe '3'.*type str"),
    "queries that are a text": ("source.iqformer.queries", "4", "queries '4'.*type int"),
    "no queries": ("source.iqformer.queries", None, "no key 'queries'"),
    "an unknown activation": ("source.iqformer.act", "evil", "act is 'evil'"),
    "no heads": ("source.iqformer.heads", 0, "heads is 0"),
    "heads below zero": ("source.iqformer.heads", -2, "heads -2"),
    "a huge width": ("source.iqformer.width", HUGE, "describes no model|expected"),
    "many queries": (
        "source.iqformer.queries",
        HUGE,
        "source.iqformer.queries is .*expected .10000000000",
    ),
    "many layers": ("source.iqformer.layers", HUGE, "has 10000000000 layers"),
    "a huge feed-forward net": ("source.iqformer.inner", HUGE, "expected .10000000000"),
    "a wide LLM": ("source.llm_width", HUGE, "into_llm.weight is .*expected .10000000000"),
    "a huge picture": ("tamim.pixels", HUGE, "tamim has pixels 10000000000"),
    "no squares": ("tamim.mask_pixels", 0, "describes no model"),
    "another inner": ("source.iqformer.inner", 96, "layers.0.feed.up.weight is .*expected .96"),
}


@pytest.fixture
def damaged(folders, backbones, tmp_path):  # noqa: F811
    """The folder of a fine-tuned model to be changed, and what loads it."""
    folder = shutil.copytree(folders["tuned"][0], tmp_path / "saved")
    return folder, lambda: VIKDF.from_pretrained(folder, backbones=backbones["llm"].parent)


@pytest.mark.parametrize("fault", CONFIGS)
def test_a_config_that_is_broken_or_hostile_is_one_sentence(damaged, fault):
    folder, load = damaged
    keys, value, said = CONFIGS[fault]
    change(folder / "config.json", keys, value)
    with pytest.raises(ValueError, match=said) as refused:
        load()
    assert "\n" not in str(refused.value) and "config.json" in str(refused.value)


PRETRAINED = {
    "no prompts": ("settings.iaci_prompts", [], "iaci_prompts"),
    "a prompt that is a text": ("settings.iaci_prompts", "abc", "type list"),
    "no source": ("source", 3, "source '3'"),
    "no origin": ("initialised_from", None, "initialised_from"),
}
LOSSES = {
    "a temperature of zero": ("settings.temperature", 0, "describes no model"),
    "a huge projection": ("settings.tim_width", HUGE, "tim.text.weight"),
    "no masks": ("settings.mask_pixels", 0, "describes no model"),
    "heads that do not fit": ("settings.fusion_heads", 7, "heads is 7"),
}


@pytest.mark.parametrize("fault", PRETRAINED | LOSSES)
def test_a_pretrained_config_that_is_broken_or_hostile_is_one_sentence(pretrained, backbones, tmp_path, fault):  # noqa: F811
    folder = shutil.copytree(pretrained, tmp_path / "saved")
    keys, value, said = (PRETRAINED | LOSSES)[fault]
    change(folder / "config.json", keys, value)
    with pytest.raises(ValueError, match=said) as refused:
        VIKDFForPretraining.load(folder, clip=backbones["clip"], llm=backbones["llm"])
    assert "\n" not in str(refused.value) and "config.json" in str(refused.value)
    if fault in PRETRAINED:
        with pytest.raises(ValueError, match=said):
            VIKDF.from_pretrained(folder, backbones=backbones["llm"].parent)


@pytest.mark.parametrize("text", ["[]", "null", "3", "{", "[" * 100_000], ids=["list", "null", "number", "cut", "deep"])
@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_a_file_that_is_no_json_object_is_one_sentence(damaged, file, text):
    folder, load = damaged
    (folder / file).write_text(text)
    with pytest.raises(ValueError, match=file):
        load()


@pytest.mark.parametrize(
    ("key", "value"),
    [("num_beams", "x"), ("num_beams", 0), ("max_new_tokens", 1.5), ("no_repeat_ngram_size", -1), ("top_p", 0.9)]
    + [("do_sample", True), ("num_beams", True)],
)
def test_a_decoding_that_would_fail_or_be_ignored_is_refused_by_name(damaged, key, value):
    folder, load = damaged
    change(folder / "generation_config.json", key, value)
    with pytest.raises(ValueError, match=f"generation_config.json.*{key}"):
        load()


@pytest.mark.parametrize("fault", ["missing", "unknown", "reshaped", "cut"])
def test_weights_that_do_not_fit_are_refused_with_the_first_tensors_name(damaged, fault):
    from safetensors.torch import load_file, save_file

    folder, load = damaged
    weights = load_file(folder / "model.safetensors")
    name = "source.into_llm.weight"
    if fault == "cut":
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-9])
    else:
        weights["source.evil" if fault == "unknown" else name] = weights[name][1:].clone()
        if fault == "missing":
            del weights[name]
        save_file(weights, folder / "model.safetensors")
    said = {
        "missing": f"it lacks {name}",
        "unknown": "source.evil is unknown",
        "reshaped": f"{name} is",
        "cut": "damaged",
    }
    with pytest.raises(ValueError, match=f"{said[fault]}.*copy the folder anew"):
        load()


def test_a_file_in_place_of_a_frozen_parts_folder_is_no_folder(damaged):
    folder, _ = damaged
    with pytest.raises(ValueError, match="config.json is no folder"):
        VIKDF.from_pretrained(folder, clip=folder / "config.json")


def test_a_link_to_a_folder_inside_a_frozen_part_is_refused_since_its_files_would_go_unnoticed(tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "part/weights").symlink_to(tmp_path / "elsewhere")
    for told in (files.contents, files.sha256):
        with pytest.raises(ValueError, match="weights is a link to a folder"):
            told(tmp_path / "part")


EVIL = "from pathlib import Path\nPath({!r}).touch()\nclass Evil: pass\n"
CODE = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
TOKENIZER = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
LOADERS = {
    "llm": (checkpoints.write_llm, LLM.load),
    "bert": (checkpoints.write_bert, lambda folder: IQFormer.load(folder, queries=2, encoder_width=8)),
    "clip": (checkpoints.write_hf_clip, CLIP.load),
    "open_clip": (checkpoints.write_clip, CLIP.load),
}


@pytest.fixture
def yes(monkeypatch):
    """Whoever asks on the standard input whether to run code is told yes."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))


@pytest.mark.parametrize(
    ("part", "file"),
    [(part, "config.json") for part in ("llm", "bert", "clip")]
    + [(part, "tokenizer_config.json") for part in ("llm", "open_clip")],
)
def test_code_in_a_folder_is_not_run_whatever_the_standard_input_says(tmp_path, yes, part, file):
    write, load = LOADERS[part]
    folder = write(tmp_path / "part")
    (folder / "evil.py").write_text(EVIL.format(str(tmp_path / "ran")))
    evil = {"model_type": "evil", "auto_map": CODE} if file == "config.json" else TOKENIZER
    (folder / file).write_text(json.dumps(files.read_json(folder / file) | evil))
    with pytest.raises(ValueError, match="code of its own is never run"):
        load(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [("text_cfg", "tokenizer_kwargs", {"trust_remote_code": True}), ("text_cfg", "hf_model_name", "evil/model")]
    + [("text_cfg", "hf_tokenizer_name", "evil/model"), ("vision_cfg", "timm_model_name", "hf-hub:evil/model")],
)
def test_an_open_clip_folder_that_names_what_may_fetch_or_run_code_is_refused(tmp_path, part, key, value):
    folder = checkpoints.write_clip(tmp_path / "clip")
    (folder / "evil.py").write_text(EVIL.format(str(tmp_path / "ran")))
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER))
    change(folder / "open_clip_config.json", f"model_cfg.{part}.{key}", value)
    with pytest.raises(ValueError, match=f"names {key}"):
        CLIP.load(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("part", ["llm", "bert", "clip"])
def test_a_folder_with_pickled_weights_alone_is_refused(tmp_path, part):
    import torch
    from safetensors.torch import load_file

    write, load = LOADERS[part]
    folder = write(tmp_path / "part")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="holds no .*safetensors.*pickle files are not loaded"):
        load(folder)
    (folder / "other.safetensors").touch()
    with pytest.raises(ValueError, match="do not fit its config.json.*model.safetensors"):
        load(folder)


@pytest.mark.parametrize("layers", [10**9, 100])
def test_a_part_that_tells_more_layers_than_it_has_weights_is_refused_before_it_is_made(backbones, tmp_path, layers):
    from transformers import AutoModelForCausalLM

    folder = shutil.copytree(backbones["llm"], tmp_path / "llm")
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(told | {"num_hidden_layers": layers}))
    with pytest.raises(
        ValueError, match=f"{folder} has num_hidden_layers {layers}, but its weights are [0-9]+ tensors"
    ):
        parts.load(AutoModelForCausalLM, folder)


def test_a_tokenizer_that_is_damaged_is_one_sentence(backbones, tmp_path):
    from transformers import AutoTokenizer

    folder = shutil.copytree(backbones["llm"], tmp_path / "llm")
    for harm in ("null", "{", '{"version": "1.0", "model": {}}'):
        (folder / "tokenizer.json").write_text(harm)
        with pytest.raises(ValueError, match=f"{folder} cannot be read, and code of its own is never run"):
            parts.read(AutoTokenizer, folder)
