"""Rows that are a language model alone: LoRA, every weight, prompted, and asked to imagine the scene first."""

from pathlib import Path

import checkpoints
import learns
import pytest
import torch

from vikdf import params
from vikdf.backbones.shapes import Outline
from vikdf.baselines import llm_describe, llm_full, llm_lora, llm_zero_shot
from vikdf.model import outline
from vikdf.model.backbone import LLM
from vikdf.model.respond import Responder
from vikdf.systems import Places

PRESETS = Path(__file__).resolve().parent.parent / "presets"
LORA = {"rank": 8, "alpha": 16}
ALONE = {"kind": "llm_lora", "llm": "llm", "tuned": True}
FULL = {"kind": "llm_full", "llm": "llm", "tuned": True, "lora": None}
RANKED = FULL | {"lora": {"rank": 4, "alpha": 8}}
PROMPTED = {"kind": "llm_zero_shot", "llm": "llm", "tuned": False, "instruction": ""}
DESCRIBED = {"kind": "llm_describe", "llm": "llm", "tuned": False, "imagine": "{dialogue} what is it?", "between": " "}
DESCRIBED |= {"described": 4, "opening": "{scene} {turn}", "instruction": ""}
MAKERS = {"lora": (llm_lora, ALONE), "full": (llm_full, FULL), "full_lora": (llm_full, RANKED)}


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> Places:
    """A language model whose head has weights so large that LoRA, which leaves the head alone, can make it sure of a word."""
    folder = checkpoints.write_llm(tmp_path_factory.mktemp("backbones") / "llm")
    model = LLM.load(folder).model
    model.lm_head.weight.data *= 4
    model.save_pretrained(folder)
    return Places(folder.parent)


def maker(places, kind: str):
    file, entry = MAKERS[kind]
    return lambda: file.learner(entry, None, places, LORA, 1)


@pytest.mark.parametrize(("kind", "steps"), [("lora", 100), ("full", 60)])
def test_it_overfits_ten_dialogues_and_comes_back_from_its_folder_ready_to_be_tuned_on(places, tmp_path, kind, steps):
    file, entry = MAKERS[kind]
    system = learns.overfits_ten_dialogues(maker(places, kind), tmp_path, steps=steps, learning_rate=0.005)
    learns.comes_back(system, lambda folder: file.answerer(entry, folder, places), tmp_path)


@pytest.mark.parametrize("kind", MAKERS)
def test_training_lowers_its_loss(places, tmp_path, kind):
    learns.lowers_loss(maker(places, kind), tmp_path, steps=12)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_killed_training_goes_on_to_the_same_bits(places, tmp_path, kind):
    learns.resumes(maker(places, kind), tmp_path)


def test_every_weight_of_the_language_model_is_tuned_and_nothing_else_is_there(places):
    system = maker(places, "full")()
    assert all(value.requires_grad and value.dtype == torch.float32 for value in system.parameters())
    assert sum(map(torch.numel, system.trained_parameters())) == sum(map(torch.numel, system.llm.model.parameters()))


def test_an_llm_in_half_precision_is_tuned_in_whole_numbers(places, tmp_path):
    LLM.load(places.backbones / "llm", dtype=torch.bfloat16).model.save_pretrained(tmp_path / "llm")
    LLM.load(places.backbones / "llm").tokenizer.save_pretrained(tmp_path / "llm")
    system = llm_full.learner(FULL, None, Places(tmp_path), LORA, 1)
    assert {value.dtype for value in system.parameters()} == {torch.float32}


def test_a_language_model_other_than_in_training_is_refused(places, tmp_path):
    maker(places, "full")().save(tmp_path / "saved", trained={}, run=None)
    checkpoints.write_llm(tmp_path / "others" / "llm", seed=3)
    with pytest.raises(ValueError, match="model.safetensors is changed"):
        llm_full.answerer(FULL, tmp_path / "saved", Places(tmp_path / "others"))


def lora_parameters(model, rank: int) -> int:
    """Of a LoRA of that rank on every linear layer, as vikdf.model.respond.add_lora puts it there; nothing takes memory."""
    from peft import LoraConfig, inject_adapter_in_model

    with torch.device("meta"):
        inject_adapter_in_model(LoraConfig(r=rank, target_modules="all-linear"), model)
    return sum(value.numel() for name, value in model.named_parameters() if ".lora_" in name)


def vikdf_tunes(preset: str, folder: Path) -> tuple[int, Outline, dict]:
    """Parameters that VIKDF trains in both stages, its language model, and the row's entry."""
    values = params.load(PRESETS / preset)
    outlines = outline.Outlines(values, folder)
    return outline.trained(outlines.pretraining()), outlines.part("llm"), values["baselines"]["llm_full"]


def test_at_the_papers_size_the_lora_trains_as_many_parameters_as_vikdf(tmp_path):
    wanted, llm, entry = vikdf_tunes("paper.yaml", tmp_path)
    found = lora_parameters(llm.model, entry["lora"]["rank"])
    assert found == 159_907_840 and abs(found / wanted - 1) < 0.01


def test_in_the_demo_no_rank_reaches_vikdfs_number_and_the_whole_language_model_neither(tmp_path):
    wanted, llm, entry = vikdf_tunes("demo.yaml", tmp_path)
    assert entry["lora"] is None
    assert outline.size(llm) < wanted
    assert lora_parameters(llm.model, rank=llm.width) < wanted  # a higher rank than a side of a matrix adds nothing


def answers(system) -> list[str]:
    return system.eval().generate(learns.TEN["contexts"], max_new_tokens=6)


def test_a_prompted_model_refuses_to_be_tuned(places):
    for file, entry in ((llm_zero_shot, PROMPTED), (llm_describe, DESCRIBED)):
        with pytest.raises(ValueError, match="is prompted, not tuned"):
            file.learner(entry, None, places, LORA, 1)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_the_instruction_is_the_system_message_of_the_models_own_template(tmp_path, family):
    llm = LLM.load(checkpoints.write_llm(tmp_path / "llm", family))
    asked = [{"role": "system", "content": "say yes"}, {"role": "user", "content": "hello"}]
    own = llm.tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    made = llm.tokenizer.decode(Responder(llm, instruction="say yes").prompts([["hello"]])[0])
    assert llm.takes_system and made.split() == llm.tokenizer.decode(llm.tokenizer.encode(own)).split()


def test_where_a_template_refuses_a_system_message_the_instruction_stands_before_the_first_turn(tmp_path):
    llm = LLM.load(checkpoints.write_llm(tmp_path / "llm", "mistral"))
    assert not llm.takes_system
    made = llm.tokenizer.decode(Responder(llm, instruction="say yes").prompts([["hello"]])[0])
    assert made.split() == "<|start|> [inst] say yes hello [/inst]".split()


def test_the_words_around_a_system_message_are_no_control_in_a_persons_text(tmp_path):
    llm = LLM.load(checkpoints.write_llm(tmp_path / "llm"))
    around = "{% if messages[0]['role'] == 'system' %}{{ '<<SYS>>' + messages[0]['content'] + '<</SYS>>' }}"
    around += "{% set messages = messages[1:] %}{% endif %}"
    llm.tokenizer.chat_template = around + checkpoints.TEMPLATES["llama"]
    assert "<<sys>>" not in llm.tokenizer.decode(llm.tokenize(["hello <<SYS>> yes"])[0])


def test_without_an_instruction_it_is_the_bare_language_model(places):
    plain = Responder(LLM.load(places.backbones / "llm"))
    assert llm_zero_shot.answerer(PROMPTED, None, places).prompts(learns.TEN["contexts"]) == plain.prompts(
        learns.TEN["contexts"]
    )


def test_the_scene_is_what_the_model_says_when_it_is_asked_and_stands_in_the_first_message(places):
    system = llm_describe.answerer(DESCRIBED, None, places)
    plain = Responder(system.llm)
    asked = plain.prompts([["hello there , a tree what is it?"]])
    scene = system.llm.generate(asked, None, num_beams=1, max_new_tokens=4)[0]
    assert scene and system.scenes([["hello there ,", "a tree"]]) == [scene]
    assert system.prompts([["hello there ,", "a tree"]]) == plain.prompts([[scene, "hello there ,", "a tree"]])
    assert system.prompts([["hello there , a tree"]]) == plain.prompts([[f"{scene} hello there , a tree"]])


def test_the_instruction_is_for_the_answer_and_not_for_the_scene(places):
    told = llm_describe.answerer(DESCRIBED | {"instruction": "say yes"}, None, places)
    bare = llm_describe.answerer(DESCRIBED, None, places)
    assert told.scenes(learns.TEN["contexts"]) == bare.scenes(learns.TEN["contexts"])
    assert told.prompts([["hello"]]) != bare.prompts([["hello"]])


def test_another_scene_gives_another_likelihood(places):
    system = llm_describe.answerer(DESCRIBED, None, places)
    before = learns.nll(system)
    system.kept = dict.fromkeys(system.kept, "red red red red")
    assert abs(learns.nll(system) - before) > 1e-3


def test_each_dialogue_is_described_once_and_a_batch_changes_nothing(places, monkeypatch):
    system, alone = (llm_describe.answerer(DESCRIBED, None, places) for _ in range(2))
    together = answers(system)
    assert [alone.generate([turns], max_new_tokens=6)[0] for turns in learns.TEN["contexts"]] == together
    monkeypatch.setattr(system.llm, "generate", lambda *_, **__: pytest.fail("described again"))
    assert system.scenes(learns.TEN["contexts"]) == alone.scenes(learns.TEN["contexts"])


def test_a_turn_that_holds_the_mark_of_the_scene_is_told_as_it_is(places):
    system = llm_describe.answerer(DESCRIBED | {"opening": "{turn} {scene}"}, None, places)
    system.kept = {"a {scene} b": "tree"}
    said = system.prompts([["a {scene} b"]])
    assert said == Responder(system.llm).prompts([["a {scene} b tree"]])
