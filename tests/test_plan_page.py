"""`vikdf plan`: the page that a person reads, the paper's own counts on it, and what is refused in a sentence."""

import json
import re
import subprocess
import sys
from pathlib import Path

import checkpoints
import pytest
import yaml

from vikdf import cli, params, plan, room
from vikdf.backbones import shapes
from vikdf.model import cost, others, outline
from vikdf.model.vikdf import LOSSES

ROOT = Path(__file__).resolve().parent.parent
PRESETS = sorted((ROOT / "presets").glob("*.yaml"))


# query tower, its cross-attention, queries, into the LLM; TIM; TAMIM's and IAMTM's block and decoder; back from the LLM
PARTS = [85.06, 14.18, 0.02, 3.15, 0.39, 7.09, 0.45, 7.09, 37.99, 3.15]


def paper() -> dict:
    return params.load(ROOT / "presets/paper.yaml")


def millions(count: int) -> float:
    return round(count / 1e6, 2)


def test_the_paper_preset_trains_159_million_parameters_and_fine_tunes_102(tmp_path):
    outlines = outline.Outlines(paper(), tmp_path)
    model = outlines.pretraining()
    assert outline.trained(model) / 1e6 == pytest.approx(159, abs=0.5)
    assert (millions(outline.trained(model)), millions(outline.trained(model.source))) == (158.58, 102.41)
    assert [millions(count) for _, count, _ in outline.parts(model)] == PARTS
    assert outline.trained(
        outlines.system({"pretrain": "vikdf", "iqformer": "tuned", "lora": False})
    ) == outline.trained(model.source)
    assert {value.device.type for value in model.parameters()} == {"meta"}


def test_the_parts_that_are_listed_are_all_that_is_trained(tmp_path):
    model = outline.Outlines(paper(), tmp_path).pretraining()
    assert sum(count for _, count, _ in outline.parts(model)) == outline.trained(model)
    kept = sum(count for _, count, kept in outline.parts(model) if kept)
    assert kept == outline.trained(model.source)


def test_the_frozen_parts_of_the_paper_preset_have_their_published_sizes(tmp_path):
    model = outline.Outlines(paper(), tmp_path).pretraining()
    assert outline.size(model.llm) == 6_738_415_616  # Llama-2-7b
    assert millions(outline.size(model.source.clip)) == 427.62  # ViT-L/14


def test_the_flops_of_a_sample_at_paper_size_are_near_those_of_the_design_and_mostly_the_llms(tmp_path):
    work = cost.pretraining(outline.Outlines(paper(), tmp_path).pretraining(), cost.Lengths(), 64, LOSSES)
    whole = sum(part.total for part in work.values())
    assert 3.3e12 < whole < 3.5e12  # the design's 3.8, less what IAKR's rows begin with, which is read once
    assert sum(part.total for name, part in work.items() if name.startswith("LLM")) / whole == pytest.approx(
        0.9, abs=0.02
    )


def test_expected_counts_are_those_of_the_data_readme():
    told = (ROOT / "data/README.md").read_text()
    for name, count in room.PICTURES.items():
        assert re.search(rf"^\| `{name}` .*\b{count:,}\b", told, flags=re.M), name
    for name, count in plan.VALID.items():
        assert re.search(rf"^\| `{name}` .*/ {count:,} / ", told, flags=re.M), name


def test_every_preset_is_planned(capsys):
    cli.main(["plan", *map(str, PRESETS), "--backbones", "nowhere"])
    said = capsys.readouterr().out
    for path in PRESETS:
        assert str(path) in said
    assert "158.58 M" in said and "102.41 M" in said and said.count("At 40% of the bf16 peak") == len(PRESETS)


def test_more_gpus_take_the_same_step_in_less_time(capsys):
    hours = []
    for processes in ("1", "4"):
        flags = ["--gpu", "H100", "--processes", processes, "--micro-batch", "4"]
        cli.main(["plan", str(ROOT / "presets/paper.yaml"), *flags])
        last = re.search(rf"^{processes} x h100 .*?([\d.,]+) h +[\d.,]+ h$", capsys.readouterr().out, flags=re.M)
        hours.append(float(last.group(1).replace(",", "")))
    assert hours[0] == pytest.approx(4 * hours[1], rel=0.01)


def test_the_hours_of_fine_tuning_are_those_of_its_own_processes(tmp_path, capsys):
    """Half the processes, each twice as often, take the same step: fine-tuning takes twice the time, pretraining the same."""
    values, hours = paper(), []
    for processes, accumulate in ((4, 4), (2, 8), (1, 16)):
        values["finetune"]["training"] |= {"processes": processes, "accumulate": accumulate}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
        cli.main(["plan", str(tmp_path / "params.yaml"), "--gpu", "rtx3090", "--backbones", "nowhere"])
        found = re.search(r"^4 x rtx3090 .*?([\d.,]+) h +([\d.,]+) h$", capsys.readouterr().out, flags=re.M).groups()
        hours.append([float(number.replace(",", "")) for number in found])
    once, whole = zip(*hours, strict=True)
    assert len(set(once)) == 1 and whole[0] > once[0]
    assert whole[1] > whole[0] and whole[2] - whole[1] == pytest.approx(2 * (whole[1] - whole[0]), rel=0.01)


def fails(words: list[str], capsys) -> str:
    with pytest.raises(SystemExit):
        cli.main(["plan", *words])
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_an_unknown_gpu_is_named_with_the_nearest_that_is_known(capsys):
    said = fails([str(ROOT / "presets/paper.yaml"), "--gpu", "rtx9999"], capsys)
    assert "unknown GPU 'rtx9999'; expected one of rtx3090, rtx4090" in said
    assert "did you mean rtx4090?" in fails([str(ROOT / "presets/paper.yaml"), "--gpu", "4090"], capsys)


def test_a_spread_llm_takes_less_of_each_gpu(tmp_path):
    values = paper()
    model, training = outline.Outlines(values, tmp_path).pretraining(), values["pretrain"]["training"]
    whole = room.memory(model, training, {})["frozen weights"]
    spread = room.memory(model, training | {"shard_llm": True}, {})["frozen weights"]
    assert whole == 2 * outline.size(model.llm, model.source.clip)
    assert whole / 4 < spread < whole / 2


def test_processes_that_do_not_divide_a_step_are_refused(capsys):
    said = fails([str(ROOT / "presets/paper.yaml"), "--processes", "3", "--micro-batch", "16"], capsys)
    assert "3 processes x 16 rows at once do not divide a step of 128 rows" in said


def test_a_missing_architecture_is_named_with_its_cure(tmp_path):
    entry = {"form": "hub", "hub": "someone/model", "revision": "abc"}
    with pytest.raises(ValueError, match="backbones.models.llm does not tell its architecture: .*`architecture`"):
        shapes.llm("llm", entry, tmp_path)


def test_a_backbone_that_was_made_tells_its_own_architecture(tmp_path):
    checkpoints.write_llm(tmp_path / "llm")
    (tmp_path / "llm/manifest.json").write_text(json.dumps({"form": "hub"}))
    made = shapes.llm("llm", {"form": "hub", "hub": "someone/model", "revision": "abc"}, tmp_path)
    assert (made.width, made.stack.layers) == (checkpoints.WIDTH, 2)


def test_what_another_preset_left_there_is_not_taken_for_it(tmp_path):
    checkpoints.write_llm(tmp_path / "llm")
    (tmp_path / "llm/manifest.json").write_text(json.dumps({"form": "language"}))
    with pytest.raises(ValueError, match="does not tell its architecture"):
        shapes.llm("llm", {"form": "hub", "hub": "someone/model", "revision": "abc"}, tmp_path)


def test_a_transformers_clip_folder_is_read_as_it_runs(tmp_path):
    from vikdf.model.encoders import CLIP

    folder = checkpoints.write_hf_clip(tmp_path / "clip")
    real, made = CLIP.load(folder), shapes.clip("clip", {"form": "path", "path": str(folder)}, tmp_path)
    sizes = ("width", "pixels", "patch", "vocabulary", "context")
    assert [getattr(made, name) for name in sizes] == [getattr(real, name) for name in sizes]
    assert outline.size(made) == outline.size(real) == sum(made.counted.values())


def test_a_named_open_clip_is_as_large_as_the_same_model_of_transformers(tmp_path):
    named = shapes.clip("clip", {"form": "open_clip", "name": "ViT-L-14-quickgelu", "pretrained": "openai"}, tmp_path)
    other = shapes.clip("clip", paper()["backbones"]["models"]["clip"], tmp_path)
    assert (named.vision, named.text, named.counted) == (other.vision, other.text, other.counted)


def test_an_architecture_that_is_not_the_models_is_refused(tmp_path):
    folder = checkpoints.write_llm(tmp_path / "llm")
    shapes.check("llm", {"model_type": "llama", "hidden_size": checkpoints.WIDTH}, folder)
    with pytest.raises(ValueError, match=f"llm.architecture.hidden_size is 99, but .* says {checkpoints.WIDTH}"):
        shapes.check("llm", {"model_type": "llama", "hidden_size": 99}, folder)


@pytest.mark.parametrize("flags", [
    "--micro-batch -1", "--processes -2", "--rows -5", "--context -3", "--response 0", "--prompt 0", "--picture-bytes 0",
    "--template 3",
])  # fmt: skip
def test_a_flag_that_no_run_could_have_is_named_with_its_value(flags, capsys):
    name, value = flags.split()
    assert f"{name} is {value}: expected at least" in fails([str(ROOT / "presets/paper.yaml"), *flags.split()], capsys)


def test_the_flags_have_the_defaults_of_the_options():
    given, options = vars(cli.parser().parse_args(["plan"])), plan.Options()
    assert given["caption"] == [12, options.lengths.caption]
    assert sum(given["caption"]) / 2 == options.lengths.caption_mean
    known = vars(options) | vars(options.lengths)
    same = set(known) & set(given) - {"caption", "backbones"}
    assert {name: given[name] for name in same} == {name: known[name] for name in same}
    assert set(known) - set(given) == {"lengths", "caption_mean", "opening"}


def test_a_folder_is_no_params_file(tmp_path, capsys):
    assert f"{tmp_path} is a folder: expected a params file" in fails([str(tmp_path)], capsys)


def test_a_reader_that_stops_early_hears_no_complaint():
    words = [sys.executable, "-m", "vikdf.cli", "plan", str(ROOT / "presets/tiny.yaml")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as run:
        run.stdout.close()
        assert b"Broken" not in run.stderr.read()


def test_the_hours_are_flops_by_peak_and_utilisation(capsys):
    """Section 4.2's 100,000 steps of 128 rows, by hand: 7.7 h where a sample takes 3.4 TFLOP."""
    cli.main(["plan", str(ROOT / "presets/paper.yaml"), "--gpu", "h100", "--backbones", "nowhere"])
    hours = float(re.search(r"^4 x h100 .*?([\d.]+) h +[\d.,]+ h$", capsys.readouterr().out, flags=re.M).group(1))
    llm = 2 * 6.476e9  # FLOP a position: 32 x (4 x 4096^2 + 3 x 4096 x 11008) weights
    iaci, iakr = 72 * llm * 2, (40 - 16 * 7 / 8) * llm + 31 * llm * 2  # IAKR's opening and prompt: once for 8 rows
    seen, rest = 325e9, 16e9 + 28e9 + 8e9 + 6e9 + 9e9  # CLIP on two pictures; IQ-Former, CLIP's texts, blocks, heads
    read = iaci + iakr + 32 * 4 * 4096 * (72**2 * 3 + 40 * 40 + 31 * 71 * 3)
    assert hours == pytest.approx(12.8e6 * (read + seen + rest) / (4 * 989.5e12 * 0.4) / 3600, rel=0.01)


def test_the_weights_of_the_papers_models_take_two_bytes_and_what_is_trained_twenty_two(tmp_path):
    values = paper()
    model = outline.Outlines(values, tmp_path).pretraining()
    taken = room.memory(model, values["pretrain"]["training"], {})
    assert taken["frozen weights"] == 2 * (6_738_415_616 + 427_616_513)
    trained = sum(taken.values()) - taken["frozen weights"]
    assert trained == 22 * outline.trained(model)  # 4 + 2 + 4 + 8, and 4 between the processes


def test_a_frozen_iqformer_keeps_its_32_bits(tmp_path):
    values = paper()
    made = outline.Outlines(values, tmp_path).system(values["finetune"]["systems"]["vikdf_lora"])
    frozen = 2 * (6_738_415_616 + 427_616_513) + 4 * outline.size(made.source.iqformer)
    assert room.memory(made, values["finetune"]["training"], {})["frozen weights"] == frozen


def test_the_system_that_takes_most_stands_for_fine_tuning(capsys):
    cli.main(["plan", str(ROOT / "presets/paper.yaml"), "--gpu", "h100"])
    assert "Memory of a GPU, finetune (llm_full, which takes most): 8 rows at once" in capsys.readouterr().out


def test_the_readme_tells_what_plan_says(capsys):
    cli.main(["plan", str(ROOT / "presets/paper.yaml"), "--gpu", "h100", "--backbones", "nowhere"])
    cli.main(["plan", str(ROOT / "presets/paper.yaml"), "--gpu", "rtx4090", "--backbones", "nowhere"])
    said, readme = capsys.readouterr().out, " ".join((ROOT / "README.md").read_text().split())
    flop = re.search(r"sum .* ([\d.]+) TFLOP", said).group(1)
    share = sum(
        float(number)
        for number in re.findall(r"^LLM: .*?([\d.]+)%$", said.split("fine-tuning dialogue")[0], flags=re.M)
    )
    hours = [re.search(rf"4 x {gpu} .*? ([\d.]+) h ", said).group(1) for gpu in ("h100", "rtx4090")]
    told = re.search(
        r"For the paper's size it says: ([\d.]+) TFLOP a pretraining sample, (\d+) % of it in the frozen LLM; one pretraining "
        r"of 12.8 M samples takes ([\d.]+) hours on four H100 and ([\d.]+) on four RTX 4090",
        readme,
    )
    assert told.groups() == (flop, f"{share:.0f}", *hours)
    for count in ("158.58 M", "102.41 M"):
        assert count in said and count in readme


@pytest.mark.parametrize(("change", "said"), [
    ({"hidden_size": "x"}, "backbones.models.llm is not one of llama: .*'hidden_size'"),
    ({"model_type": "lama"}, "model_type 'lama'; did you mean llama"),
    ({"num_attention_heads": 0}, "num_attention_heads 0: expected at least 1"),
    ({"model_type": "mixtral"}, "experts.* cannot count a mixture of experts"),
], ids=["type", "family", "nothing", "experts"])  # fmt: skip
def test_an_architecture_that_cannot_be_counted_is_refused_in_a_sentence(change, said, tmp_path):
    entry = paper()["backbones"]["models"]["llm"]
    with pytest.raises(ValueError, match=said) as refused:
        shapes.llm("llm", entry | {"architecture": entry["architecture"] | change}, tmp_path)
    assert len(str(refused.value)) < 300


def test_a_model_in_the_place_of_another_is_refused(tmp_path):
    models = paper()["backbones"]["models"]
    for part, name in (("bert", "clip"), ("llm", "clip"), ("clip", "bert")):
        with pytest.raises(ValueError, match=f"backbones.models.{name} is a {name} without"):
            getattr(shapes, part)(name, models[name], tmp_path)


def test_one_process_cannot_spread_the_llm_in_a_plan_either(tmp_path, capsys):
    values = paper()
    values["pretrain"]["training"]["shard_llm"] = True
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    said = fails([str(tmp_path / "params.yaml"), "--processes", "1"], capsys)
    assert "`pretrain.training.shard_llm` is true, but `pretrain.training.processes` is 1" in said


def test_the_baselines_have_the_parameters_of_their_papers(tmp_path):
    found = others.counted(paper(), tmp_path)
    assert {name: millions(found[name].tuned) for name in ("seq2seq", "bart")} == {"seq2seq": 24.0, "bart": 406.29}
    assert (millions(found["zrigf"].before), millions(found["zrigf"].tuned)) == (102.2, 658.23)
    assert "llm_full" not in found  # there it is LoRA, and counted as a system of the LLM


def test_the_page_names_every_baseline_that_is_tuned(tmp_path):
    values = paper()
    page = "\n".join(plan.baselines(values, plan.Options(backbones=tmp_path)))
    for name, entry in values["baselines"].items():
        assert plan.alone(entry) or not entry["tuned"] or name in page
