"""A model out of the pipeline: saved, found, checked, loaded in a fresh process; what it replies, tells, and draws."""

import hashlib
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_finetune import ALONE, FROZEN, KNOWING, LORA, dialogues, pretrained, tune  # noqa: F401 - fixtures
from test_pretrain import product, shards  # noqa: F401 - fixtures

import vikdf
from vikdf import files, systems
from vikdf.model import checkpoint
from vikdf.model.auto import VIKDF
from vikdf.model.backbone import LLM
from vikdf.model.respond import Responder
from vikdf.model.vikdf import VIKDFForPretraining

ASKED = ["hello there", "what colour is the kettle ?"]


@pytest.fixture(scope="session")
def folders(pretrained, backbones, tmp_path_factory):  # noqa: F811
    """Saved models by kind, and what their logits were in the process that saved them."""
    root, made = tmp_path_factory.mktemp("saved"), {"pretrained": (pretrained, None)}
    models = {
        "tuned": systems.learner(KNOWING, pretrained, systems.Places(backbones["llm"].parent), {}, 1),
        "lora": systems.learner(FROZEN, pretrained, systems.Places(backbones["llm"].parent), LORA, 1),
        "alone": Responder(LLM.load(backbones["llm"]), lora_rank=2),
    }
    for name, model in models.items():
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in model.trained_parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        model.save(root / name)
        made[name] = (root / name, digest(model))
    return made


@pytest.fixture
def load(folders, backbones):
    def loaded(name: str = "tuned") -> VIKDF:
        return VIKDF.from_pretrained(folders[name][0], backbones=backbones["llm"].parent)

    return loaded


@torch.no_grad()
def digest(responder: Responder) -> str:
    """The logits of a prompt, bit for bit."""
    llm = responder.llm
    ids, mask = llm.pad(responder.prompts([ASKED]))
    logits = llm.model(inputs_embeds=llm.embed(ids, responder.project([ASKED])), attention_mask=mask).logits
    return hashlib.sha256(logits.numpy().tobytes()).hexdigest()


def test_a_fresh_process_gives_equal_logits_and_auto_model_gives_the_same_model(folders, backbones):
    script = (
        "import json, sys; sys.path.insert(0, 'tests')\n"
        "from test_use import digest; import vikdf.model.auto; from transformers import AutoModel, AutoTokenizer\n"
        "root, *paths = sys.argv[1:]\n"
        "ours = [digest(vikdf.VIKDF.from_pretrained(path, backbones=root)) for path in paths]\n"
        "auto = [AutoModel.from_pretrained(path, backbones=root) for path in paths]\n"
        "assert all(type(model) is vikdf.VIKDF for model in auto)\n"
        "assert AutoTokenizer.from_pretrained(paths[0]).chat_template == auto[0].llm.tokenizer.chat_template\n"
        "print(json.dumps([ours, [digest(model) for model in auto]]))\n"
    )
    names = ["tuned", "lora", "alone"]
    words = [str(backbones["llm"].parent), *(str(folders[name][0]) for name in names)]
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", script, *words], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours, auto = json.loads(done.stdout.splitlines()[-1])
    assert ours == auto == [folders[name][1] for name in names]
    assert len(set(ours)) == 3


def test_a_pretrained_folder_answers_as_the_system_that_begins_there(pretrained, backbones, load):  # noqa: F811
    model = VIKDFForPretraining.load(pretrained, clip=backbones["clip"], llm=backbones["llm"])
    assert torch.equal(load("pretrained").knowledge(ASKED), model.eval().knowledge([" ".join(ASKED)])[0])
    begun = systems.learner(KNOWING, pretrained, systems.Places(backbones["llm"].parent), {}, 1)
    assert digest(load("pretrained")) == digest(begun)


def test_importing_vikdf_imports_neither_torch_nor_transformers():
    script = "import vikdf, sys; print({'torch', 'transformers'} & set(sys.modules), vikdf.VIKDF.__name__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "set() VIKDF", done.stderr
    with pytest.raises(AttributeError, match="no attribute 'VIKDE'"):
        _ = vikdf.VIKDE


def test_what_is_beside_a_frozen_parts_files_does_not_change_it(folders, backbones, tmp_path):
    root = shutil.copytree(backbones["llm"].parent, tmp_path / "backbones")
    files.write_json(root / "llm/manifest.json", {"form": "language"})
    (root / "clip/.snakemake_timestamp").touch()
    assert digest(VIKDF.from_pretrained(folders["tuned"][0], backbones=root)) == folders["tuned"][1]


def test_frozen_parts_are_found_above_the_checkpoint_then_below_the_working_directory(
    folders, backbones, tmp_path, monkeypatch
):
    shutil.copytree(backbones["llm"].parent, tmp_path / "tree/data/backbones")
    inside = shutil.copytree(folders["tuned"][0], tmp_path / "tree/results/finetune/one")
    monkeypatch.chdir(tmp_path)
    assert VIKDF.from_pretrained(inside).llm.folder == tmp_path / "tree/data/backbones/llm"
    monkeypatch.chdir(tmp_path / "tree")
    assert VIKDF.from_pretrained(folders["tuned"][0]).llm.folder == tmp_path / "tree/data/backbones/llm"


@pytest.mark.parametrize("name", ["pretrained", "tuned", "lora", "alone"])
def test_a_loaded_model_saved_twice_gives_the_same_bytes_and_loads_again(folders, backbones, load, name, tmp_path):
    model = load(name)
    for place in ("one", "two/deeper"):
        model.save_pretrained(tmp_path / place)
    assert files.contents(tmp_path / "one") == files.contents(tmp_path / "two/deeper")
    again = VIKDF.from_pretrained(tmp_path / "one", backbones=backbones["llm"].parent)
    assert digest(again) == digest(model)
    if name != "pretrained":  # what only distillation needs is left behind there
        assert files.contents(tmp_path / "one") == files.contents(folders[name][0])


@pytest.fixture(scope="session")
def products(product, tune, tmp_path_factory):  # noqa: F811
    """What the stages themselves wrote."""
    root = tmp_path_factory.mktemp("products")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vikdf.tracking.send", lambda folder, store: None)
        patch.chdir(root)
        tuned = tune(root, [product], "vikdf", KNOWING)
        return {"pretrain": product, "finetune": tuned, "alone": tune(root, [], "llm_lora", ALONE)}


@pytest.mark.parametrize("stage", ["pretrain", "finetune", "alone"])
def test_a_product_loads_and_its_card_tells_parts_counts_settings_and_results(products, backbones, stage):
    folder = products[stage]
    config, card = files.read_json(folder / "config.json"), (folder / "README.md").read_text()
    for part, entry in config["frozen"].items():
        assert f"| {part} | {part} |" in card and entry["sha256"] in card
    assert f"{sum(files.read_json(folder / 'tuned.json').values()):,}" in card
    assert sum(config["trained"].values()) == sum(files.read_json(folder / "tuned.json").values())
    found = files.read_json(folder / "metrics.json")
    shown = ["tim", "iaci"] if stage == "pretrain" else ["validation_nll"]
    assert all(f"- {name}: {found[name]}\n" in card for name in [*shown, "steps"])
    assert '"learning_rate"' in card and "seed 1" in card and 'VIKDF.from_pretrained("' in card and "## Limits" in card
    assert isinstance(VIKDF.from_pretrained(folder, backbones=backbones["llm"].parent).reply(ASKED), str)


@pytest.mark.parametrize("stage", ["pretrain", "finetune", "alone"])
def test_no_file_of_a_product_names_a_path_or_this_machine(products, backbones, stage):
    for path in products[stage].iterdir():
        data = path.read_bytes()
        for word in (
            str(backbones["llm"].parent),
            str(products[stage].parent),
            str(Path.home()) + "/",
            socket.gethostname(),
        ):
            assert len(word) < 4 or word.encode() not in data, f"{path.name} holds {word}"


def test_a_hub_part_is_named_by_hub_name_and_revision(backbones, tmp_path):
    llm = shutil.copytree(backbones["llm"], tmp_path / "llm")
    files.write_json(llm / "manifest.json", {"form": "hub", "hub": "some/model", "revision": "0123abc", "sha256": "-"})
    Responder(LLM.load(llm), lora_rank=2).save(tmp_path / "saved")
    assert files.read_json(tmp_path / "saved/config.json")["frozen"]["llm"]["source"] == "some/model@0123abc"
    assert "| llm | llm | some/model@0123abc |" in (tmp_path / "saved/README.md").read_text()


def test_a_reply_is_what_generate_gives_and_one_text_is_one_turn(load):
    model = load()
    assert model.reply(ASKED) == model.generate([ASKED])[0]
    assert model.reply(ASKED, beams=1, max_new_tokens=4) == model.generate([ASKED], beams=1, max_new_tokens=4)[0]
    assert model.reply("hello") == model.reply(["hello"]) == model.generate([["hello"]])[0]


def test_the_decoding_of_the_folder_is_used_and_saved_again(folders, backbones, tmp_path):
    folder = shutil.copytree(folders["tuned"][0], tmp_path / "saved")
    said = files.read_json(folder / "generation_config.json")
    assert said == {"do_sample": False, "num_beams": 3, "no_repeat_ngram_size": 3, "max_new_tokens": 32}
    files.write_json(folder / "generation_config.json", said | {"max_new_tokens": 2, "num_beams": 1})
    model = VIKDF.from_pretrained(folder, backbones=backbones["llm"].parent)
    assert model.reply(ASKED) == model.generate([ASKED], beams=1, max_new_tokens=2)[0] != model.generate([ASKED])[0]
    model.save_pretrained(tmp_path / "again")
    assert checkpoint.read_decoding(tmp_path / "again") == {"beams": 1, "no_repeat_ngram": 3, "max_new_tokens": 2}


def test_a_dialogue_that_is_empty_or_too_long_is_refused(load):
    model = load()
    for dialogue in ([], "", ["hello", " "], [3]):
        with pytest.raises(ValueError, match="the dialogue is"):
            model.reply(dialogue)
    with pytest.raises(ValueError, match="too long.*shorten it"):
        model.reply(["red " * 300])
    with pytest.raises(ValueError, match="too long.*leave out the oldest turns"):
        model.reply(["red " * 300, "yes", "hello"])
    with pytest.raises(ValueError, match="too long.*lower max_new_tokens"):
        model.textualize("hello", max_new_tokens=300)


@pytest.mark.parametrize("given", [{"beams": 0}, {"no_repeat_ngram": -1}, {"max_new_tokens": 1.5}, {"foo": 1}], ids=str)
def test_a_word_or_number_that_decoding_does_not_know_is_refused_by_name(load, given):
    for ask in (load().reply, load().textualize):
        with pytest.raises(ValueError, match=f"the call says '?{[*given][0]}"):
            ask(ASKED, **given)


def test_knowledge_is_one_row_of_vectors_a_query(load):
    model = load()
    K = model.knowledge(ASKED)
    assert K.shape == (model.source.queries, model.source.iqformer.width) and not K.requires_grad
    assert torch.equal(K, model.knowledge(" ".join(ASKED)))
    assert not torch.allclose(K, model.knowledge("a vase on the beach"))


def test_textualize_hears_the_dialogue_through_the_knowledge_alone(load):
    model, texts = load(), ["what colour is the kettle ?", "a vase on the beach and a tree"]
    with torch.no_grad():
        model.source.into_llm.weight.mul_(30)  # so that a little knowledge changes a little model's words
    assert model.textualize(texts[0]) != model.textualize(texts[1])
    with torch.no_grad():
        for layer in model.source.iqformer.layers:
            if layer.cross is not None:
                layer.cross.output.weight.zero_()  # now K tells nothing of the text
    assert model.textualize(texts[0]) == model.textualize(texts[1])
    assert model.reply(texts[0]) != model.reply(texts[1])


def test_textualize_asks_with_the_first_prompt_of_iaci_also_after_fine_tuning(load):
    assert load("pretrained").describe == load("tuned").describe == "Write a short description for the image."


@pytest.mark.parametrize("name", ["pretrained", "tuned", "lora"])
def test_a_drawing_has_clips_size_and_differs_between_dialogues(load, name):
    model = load(name)
    drawn = [model.draw(text) for text in ("what colour is the kettle ?", "a vase on the beach and a tree")]
    assert [(picture.mode, picture.size) for picture in drawn] == [("RGB", (48, 48))] * 2
    assert not np.array_equal(*map(np.asarray, drawn))
    assert np.array_equal(np.asarray(drawn[0]), np.asarray(load(name).draw("what colour is the kettle ?")))


@pytest.mark.parametrize(("value", "shown"), [(0.0, 128), (1.0, 255), (-1.0, 0), (0.5, 191), (7.0, 255)])
def test_a_drawing_undoes_the_clips_own_normalisation(load, value, shown):
    model = load()
    model.tamim.decoder.weight.data.zero_()
    model.tamim.decoder.bias.data.fill_(value)  # the demo's CLIP: mean 0.5, deviation 0.5
    assert set(np.asarray(model.draw("hello")).flatten()) == {shown}


def test_fine_tuning_carries_tamim_along_and_neither_trains_nor_counts_it(product, products, backbones):  # noqa: F811
    before, after = (checkpoint.read_weights(folder, "tamim.") for folder in (product, products["finetune"]))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    responder = systems.learner(KNOWING, product, systems.Places(backbones["llm"].parent), {}, 1)
    assert responder.tamim is not None
    assert not [name for name in checkpoint.trainable(responder) if name.startswith("tamim")]
    loss = responder.loss([ASKED], ["red"])
    responder.tamim = None
    assert torch.equal(loss, responder.loss([ASKED], ["red"]))


def test_a_model_distilled_without_tamim_says_that_it_cannot_draw(backbones, tmp_path):
    model = VIKDFForPretraining.build(**backbones, queries=2, mask_pixels=24)
    model.tamim.requires_grad_(False)
    model.save(tmp_path / "saved")
    again = VIKDF.from_pretrained(tmp_path / "saved", backbones=backbones["llm"].parent)
    with pytest.raises(ValueError, match="cannot draw: it was distilled without TAMIM"):
        again.draw("hello")


def test_a_text_only_system_says_that_it_has_no_knowledge(load):
    model = load("alone")
    assert model.reply(ASKED) == model.generate([ASKED])[0]
    for ask in (model.knowledge, model.textualize, model.draw):
        with pytest.raises(ValueError, match="tuned on text alone"):
            ask("hello")
