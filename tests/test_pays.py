"""When `vikdf plan` says that the feature cache pays: bytes as they lie on the disk, FLOPs as torch counts them, plain sums."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_features import CPU, clip, data  # noqa: F401 - fixtures
from test_plan import built, counted  # noqa: F401 - a fixture
from test_pretrain import shards  # noqa: F401 - a fixture

from vikdf import cli, features, params, pays, plan, room
from vikdf.model import cost, outline

ROOT = Path(__file__).resolve().parent.parent
CACHE = pays.Cache(
    pictures=1000, written=2e6, read=1e6, making=3e12, saved=2e12, rows=8, processes=4, workers=2, disk=1e9
)
PACE = 1e12  # FLOP a second


def test_making_decodes_computes_and_writes_on_one_gpu():
    assert CACHE.made_in(PACE) == pytest.approx(1000 * (3 + 1 / (2 * pays.DECODED) + 0.002))


def test_a_step_gains_what_each_gpu_does_not_compute():
    assert CACHE.gained(PACE) == pytest.approx(2 * 2.0)  # 8 rows on 4 GPUs


def test_without_loader_workers_a_step_also_gains_the_decoding():
    assert replace(CACHE, workers=0).gained(PACE) == pytest.approx(2 * 2.0 + 2 / pays.DECODED)


def test_all_processes_read_from_one_disk():
    assert CACHE.reading() == pytest.approx(8 * 0.001)


def test_it_pays_at_the_first_step_after_which_it_has_saved_what_it_cost():
    steps = CACHE.pays_after(PACE)
    each = CACHE.gained(PACE) - CACHE.reading()
    assert (steps - 1) * each < CACHE.made_in(PACE) <= steps * each


def test_it_never_pays_where_reading_takes_longer_than_computing():
    assert CACHE.pays_after(1e16) is None
    assert "never pays" in pays.verdict(CACHE, "a fast GPU", 1e16, 10)


def test_too_few_steps_are_named():
    assert pays.verdict(CACHE, "a GPU", PACE, 10).endswith("10 steps that share it, too few")
    assert pays.verdict(CACHE, "a GPU", PACE, 10_000).endswith("10,000 steps that share it")


def test_the_bytes_of_an_entry_are_those_on_the_disk(data, clip, tmp_path):  # noqa: F811
    folder = features.of(tmp_path, data, clip, CPU).folder
    texts = sorted({text for row in data.index["captions"].to_pylist() for text in row})
    mean = clip.text_mask(clip.tokenize(texts)).sum().item() / len(texts) - 2
    values = {"caption": {"keep": 2}, "pretrain": {"training": {"precision": "float32"}}}

    class Model:
        source = type("", (), {"clip": clip})

    told = room.entry(values, Model, cost.Lengths(caption_mean=mean))
    found = sum(path.stat().st_size - 128 for path in folder.rglob("*.npy"))  # without numpy's header
    assert found == pytest.approx(len(data) * sum(told.values()))


def test_the_flops_of_making_are_those_that_torch_counts(built):  # noqa: F811
    model, outlines = built
    clip = model.source.clip  # noqa: F811
    pixels, tokens = torch.randn(1, 3, clip.pixels, clip.pixels), clip.tokenize(["a red kettle"] * 3)
    leaf = torch.ones((), requires_grad=True)  # for the counter's backward

    def encode():
        return (clip.image(pixels).sum() + clip.states(tokens).sum()) * leaf

    assert cost.features(outlines.pretraining(), 3) == pytest.approx(counted(encode)[0], rel=0.03)


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    values = plan.launched(params.load(ROOT / "presets/paper.yaml"), plan.Options())
    return values, outline.Outlines(values, tmp_path_factory.mktemp("nowhere")).pretraining()


def test_a_step_is_saved_what_the_plan_leaves_out_with_the_cache(paper):
    values, model = paper
    plain, cached = (
        sum(part.total for part in plan.sample(values, model, plan.Options(), way).values()) for way in (False, True)
    )
    assert plain - cached == pytest.approx(cost.features(model, 1))  # a picture and one caption


def test_pretrainings_with_the_same_clip_share_its_features():
    values = params.load(ROOT / "params.yaml")
    steps = values["pretrain"]["training"]["steps"]
    assert room.clips(values) == {
        "clip": 2 * steps,
        "clip_shuffled": steps,
    }  # vikdf and shuffled; `initial` has no step


@pytest.mark.parametrize(("flags", "said"), [
    ({"gpu": "h100"}, "on 4 x h100 the feature cache never pays: a step gains"),
    ({"gpu": "rtx3090", "rows": 118_287}, r"on 4 x rtx3090 the feature cache pays after [\d,]+ steps: made in [\d.]+ min"),
    ({"gpu": "h100", "rows": 118_287, "disk": 10.0}, r"on 4 x h100 the feature cache pays after [\d,]+ steps"),
])  # fmt: skip
def test_the_plan_of_the_paper_says_in_a_line_whether_it_pays(paper, flags, said):
    assert re.search(said, plan.cached(*paper, plan.Options(**flags))[-1])


def test_the_plan_counts_the_cache_where_the_params_ask_for_it(capsys):
    cli.main(["plan", str(ROOT / "presets/tiny.yaml"), "--gpu", "h100", "--backbones", "nowhere"])
    said = capsys.readouterr().out
    for words in (
        "cached CLIP features, in state",
        "making the cached CLIP features",
        "pretrain.cache_features is true",
    ):
        assert words in said


def test_a_disk_that_reads_nothing_is_refused(capsys):
    with pytest.raises(SystemExit):
        cli.main(["plan", str(ROOT / "presets/paper.yaml"), "--disk", "0"])
    assert "--disk is 0.0: expected gigabytes a second, above 0" in capsys.readouterr().err
