"""The figures: readable by everyone, in any page, and what they show is what the tables say."""

import itertools
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from vikdf import schemas
from vikdf.figures import cost, curves, fractions, funnel, probe, significance, style
from vikdf.figures.__main__ import figures as draw_all
from vikdf.filter.funnel import REPORT
from vikdf.means import METRICS, read_csv, write_csv

SYSTEMS, CONTROLS = ["vikdf", "llm_lora"], ["random"]
SVG = "{http://www.w3.org/2000/svg}"
PAPER, NIGHT = "#ffffff", "#16181d"
SIGHTS = {  # Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB
    "all colours": np.eye(3),
    "no red": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no green": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    ),
}


def table_rows(seeds=1) -> list[dict]:
    points = [("vikdf", "zero"), ("vikdf", "full"), ("llm_lora", "zero"), ("llm_lora", "full"), ("random", "zero")]
    return [
        {"task": task, "system": name, "data": data, "seeds": seeds} | {metric: 10.0 + place for metric in METRICS}
        for task in ("reddit", "image_chat")
        for place, (name, data) in enumerate(points)
        if task == "image_chat" or data == "zero"
    ]


def interval_rows() -> list[dict]:
    made = [row | {"metric": m, "low": row[m] - 1, "high": row[m] + 1} for row in table_rows() for m in METRICS]
    looks = [{"task": "probe", "system": "vikdf", "data": "zero", "metric": "color_accuracy_all_heldout"}]
    return made + [row | {"low": 0.7, "high": 0.9} for row in looks]


def probe_rows() -> list[dict]:
    each = itertools.product([*SYSTEMS, *CONTROLS], ("color", "place"), ("heldout", "seen"))
    return [
        {
            "system": name,
            "data": "zero",
            "attribute": look,
            "nouns": nouns,
            "n": 30.0,
            "accuracy_all": 0.8,
            "floor": 0.2,
        }
        for name, look, nouns in each
    ]


def verdict_rows() -> list[dict]:
    return [
        {"task": "reddit", "block": "systems", "metric": metric, "system": name, "data": "zero", "difference": difference,
         "p_holm": p, "better": better, "low": None, "high": None, "t_low": None, "t_high": None, "significant": better}
        for name, difference, p, better in (("vikdf", 1.25, 0.01, "yes"), ("llm_lora", -1.25, 0.4, "no"))
        for metric in METRICS
    ]  # fmt: skip


def cost_rows(count=3) -> list[dict]:
    return [
        {"stage": "finetune", "run": f"run{n}", "seconds": 100.0 / 50**n, "peak_memory_mb": 512.0} for n in range(count)
    ]


def report() -> pl.DataFrame:
    rows = [("coco", "picture", "kept", 90), ("coco", "picture", "small", 10), ("sbu", "picture", "kept", 40)]
    return pl.DataFrame(rows, schema=REPORT.names, orient="row")


def point_rows(name="vikdf", fraction=None, steps=200) -> list[dict]:
    run = f"{name}-{fraction}-s1" if fraction else f"{name}-s1"
    loss = "nll" if fraction else "tim"
    made = [{"run": run, "name": name, "fraction": fraction, "step": n, loss: 1 / n} for n in range(1, steps + 1)]
    return made + [{"run": run, "name": name, "fraction": fraction, "step": steps, "validation": 0.5}] * bool(fraction)


DRAWN = {
    "curves_pretrain": lambda path: curves.draw_pretrain(point_rows(), path, SYSTEMS),
    "curves_finetune": lambda path: curves.draw_finetune(point_rows(fraction="zero"), path, SYSTEMS),
    "funnel": lambda path: funnel.draw(report(), path),
    "fractions": lambda path: fractions.draw(table_rows(), path, interval_rows(), SYSTEMS),
    "probe": lambda path: probe.draw(probe_rows(), path, interval_rows(), SYSTEMS + CONTROLS),
    "significance": lambda path: significance.draw(verdict_rows(), path, 0.05),
    "cost": lambda path: cost.draw(cost_rows(), path),
}
EMPTY = {
    "curves_pretrain": lambda path: curves.draw_pretrain([], path, SYSTEMS),
    "curves_finetune": lambda path: curves.draw_finetune([], path, SYSTEMS),
    "funnel": lambda path: funnel.draw(report().clear(), path),
    "fractions": lambda path: fractions.draw([], path, [], SYSTEMS),
    "probe": lambda path: probe.draw([], path, [], SYSTEMS),
    "significance": lambda path: significance.draw([], path, 0.05),
    "cost": lambda path: cost.draw([], path),
}
EACH = pytest.mark.parametrize("name", DRAWN)


def texts(path: Path) -> list[str]:
    return [part.text for part in ET.parse(path).iter(f"{SVG}text")]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("figures")
    for name, draw in DRAWN.items():
        draw(folder / f"{name}.svg")
    return {name: folder / f"{name}.svg" for name in DRAWN}


@EACH
def test_the_same_rows_give_the_same_bytes(name, drawn, tmp_path):
    DRAWN[name](tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_bytes() == drawn[name].read_bytes()


@EACH
def test_a_figure_asks_nobody_for_anything(name, drawn):
    text = drawn[name].read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?:|<script|<image|@import|<!DOCTYPE|<metadata", text)


@EACH
def test_a_figure_takes_the_colour_of_the_page_and_no_background(name, drawn):
    text = drawn[name].read_text()
    assert "currentColor" in text and style.INK not in text
    assert not re.search(r"fill: (#ffffff|white)", text)
    assert (
        "svg:root" in ET.fromstring(text).find(f"{SVG}style").text
    )  # a page that holds the figure is not touched by it


@EACH
def test_a_figure_fits_a_phone_and_tells_who_cannot_see_it(name, drawn):
    root = ET.parse(drawn[name]).getroot()
    assert float(root.get("viewBox").split()[2]) < 400 and root.get("width") == "100%" and root.get("height") is None
    assert root.get("role") == "img" and root.find(f"{SVG}title").text and root.find(f"{SVG}desc").text


def test_no_two_figures_in_one_page_have_an_id_in_common(drawn):
    ids = [re.findall(r'\bid="([^"]+)"', path.read_text()) for path in drawn.values()]
    every = list(itertools.chain(*(set(found) for found in ids)))
    assert len(every) == len(set(every))


@EACH
def test_what_a_figure_refers_to_is_in_it(name, drawn):
    text = drawn[name].read_text()
    wanted = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    assert wanted <= set(re.findall(r'\bid="([^"]+)"', text))


@pytest.mark.parametrize("name", EMPTY)
def test_a_figure_without_rows_says_why(name, tmp_path):
    EMPTY[name](tmp_path / "none.svg")
    assert len(texts(tmp_path / "none.svg")) == 1


def linear(color: str) -> np.ndarray:
    part = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it."""
    low, high = sorted(float(linear(color) @ [0.2126, 0.7152, 0.0722]) + 0.05 for color in (one, other))
    return high / low


def lab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_every_colour_is_seen_on_white_and_on_black():
    assert min(contrast(color, page) for color in style.COLORS for page in (PAPER, NIGHT)) >= 3


@pytest.mark.parametrize("sight", SIGHTS)
def test_no_two_colours_look_alike_to_the_colour_blind(sight):
    seen = [lab(SIGHTS[sight] @ linear(color)) for color in style.COLORS]
    assert min(np.linalg.norm(one - other) for one, other in itertools.combinations(seen, 2)) > 17


def test_names_beyond_the_colours_differ_too():
    looks = [tuple(look.values()) for look in style.looks([str(n) for n in range(25)]).values()]
    assert len(set(looks)) == 25
    marked = {look[:2] for look in looks[:24]}  # a point alone shows no line
    assert len(marked) == 24


def test_a_name_with_signs_of_markup_and_maths_stays_text(tmp_path):
    rows = [row | {"run": 'a<b>$x_1$&"</text><script>'} for row in cost_rows(1)]
    cost.draw(rows, tmp_path / "cost.svg")
    assert 'a<b>$x_1$&"</text><script>' in texts(tmp_path / "cost.svg")


def test_a_long_curve_is_drawn_as_means_of_equal_stretches():
    points = [(step, step**2) for step in range(1, 6001)]
    thin = curves.thinned(points)
    assert len(thin) == 60 and thin[0] == (50.5, sum(n * n for n in range(1, 101)) / 100)
    assert curves.thinned(points[:60]) == points[:60] and curves.thinned([]) == []


def test_a_wild_first_step_does_not_flatten_all_lines(tmp_path):
    tall = [row | {"nll": 900.0} if row["step"] == 1 else row for row in point_rows(fraction="zero")]
    curves.draw_finetune(tall, tmp_path / "c.svg", SYSTEMS)
    assert any(text.startswith("0.0") for text in texts(tmp_path / "c.svg"))  # a mark of the axis where the others lie


def test_the_funnel_counts_all_sources(drawn):
    found = texts(drawn["funnel"])
    assert "140" in found and "130" in found and "\u221210" in found


def test_the_matrix_holds_the_differences_and_stars_those_that_are_more_than_chance(drawn):
    found = texts(drawn["significance"])
    assert found.count("+1.25*") == len(METRICS) == found.count("\u22121.25")


def test_a_worse_row_is_never_blue_however_sure(tmp_path):
    significance.draw([row | {"better": "no", "p_holm": 0.001} for row in verdict_rows()], tmp_path / "worse.svg", 0.05)
    text = (tmp_path / "worse.svg").read_text()
    assert style.GOOD not in text and style.BAD in text


def test_a_better_row_has_the_star_of_table_1_whatever_its_p(tmp_path):
    significance.draw([row | {"significant": "no"} for row in verdict_rows()], tmp_path / "s.svg", 0.05)
    assert "+1.25" in texts(tmp_path / "s.svg") and "+1.25*" not in texts(tmp_path / "s.svg")


def test_a_worse_row_has_a_star_only_where_the_intervals_say_so_too(tmp_path):
    worse = [row | {"p_holm": 0.001} for row in verdict_rows() if row["better"] == "no"]
    for bounds, stars in (((-3.0, 0.5), 0), ((-2.0, -0.5), len(METRICS))):  # over seeds
        rows = [row | dict(zip(("t_low", "t_high"), bounds, strict=True)) for row in worse]
        significance.draw(rows, tmp_path / "s.svg", 0.05)
        assert texts(tmp_path / "s.svg").count("\u22121.25*") == stars
    significance.draw([row | {"low": -3.0, "high": 0.5} for row in worse], tmp_path / "s.svg", 0.05)  # over examples:
    assert texts(tmp_path / "s.svg").count("\u22121.25*") == len(METRICS) - 2  # Dis-1 and Dis-2 ask for it


def test_a_point_lies_in_the_middle_of_its_interval(tmp_path):
    only = [row for row in probe_rows() if row["system"] == "vikdf" and row["attribute"] == "color"]
    probe.draw([row for row in only if row["nouns"] == "heldout"], tmp_path / "p.svg", interval_rows(), SYSTEMS)
    text = (tmp_path / "p.svg").read_text()
    bar = re.search(rf'd="M ([\d.]+) ([\d.]+)  L ([\d.]+) \2  "[^>]*stroke: {style.GOOD}', text)
    point = re.search(rf'<use [^>]*x="([\d.]+)" y="{bar[2]}"[^>]*fill: {style.GOOD}', text)
    assert float(point[1]) == pytest.approx((float(bar[1]) + float(bar[3])) / 2, abs=0.02)


def test_short_runs_are_one_bar_with_their_number():
    bars = cost.folded(cost_rows(5))
    assert [bar["run"] for bar in bars] == ["run0", "run1", "finetune: 3 short runs"]
    assert sum(bar["seconds"] for bar in bars) == pytest.approx(sum(row["seconds"] for row in cost_rows(5)))


def test_one_seed_and_several_are_told_apart(tmp_path):
    for seeds, said in ((1, "one seed"), (3, "3 seeds")):
        fractions.draw(table_rows(seeds), tmp_path / "f.svg", [], SYSTEMS)
        assert any(said in text for text in texts(tmp_path / "f.svg"))


def test_a_damaged_curve_and_a_strange_folder_are_named(tmp_path):
    path = tmp_path / "vikdf-zero-s1/curves.jsonl"
    path.parent.mkdir()
    path.write_text('{"step": 1, "nll": 2.0}\n{"step": 2, "nl')
    with pytest.raises(ValueError, match="curves.jsonl, line 2 is no point .* delete .*vikdf-zero-s1 and run"):
        curves.read([path])
    with pytest.raises(ValueError, match="called strange, expected <name>-s<seed>"):
        curves.read([tmp_path / "strange/curves.jsonl"])


def test_a_table_is_read_with_numbers_as_numbers_and_names_as_text(tmp_path):
    row = {"system": "007", "better": "yes", "ppl": 1.5, "low": None}
    write_csv(tmp_path / "t.csv", list(row), [row])
    assert read_csv(tmp_path / "t.csv") == [row]


def test_one_call_draws_all_figures_from_files(tmp_path):
    tables = {
        "table": table_rows(),
        "probe": probe_rows(),
        "intervals": interval_rows(),
        "significances": verdict_rows(),
    }
    tables["cost"] = cost_rows()
    for name, rows in tables.items():
        write_csv(tmp_path / name, list(rows[0]), [dict.fromkeys(rows[0]) | row for row in rows])
    paths = {"pretrain": tmp_path / "vikdf-s1", "finetune": tmp_path / "vikdf-zero-s1"}
    for name, folder in paths.items():
        folder.mkdir()
        value = "tim" if name == "pretrain" else "nll"
        (folder / "curves.jsonl").write_text("".join(json.dumps({"step": n, value: 1.0}) + "\n" for n in (1, 2)))
    schemas.write(report().to_arrow(), tmp_path / "report.parquet", REPORT)
    curve_files = {name: [folder / "curves.jsonl"] for name, folder in paths.items()}
    about = {"systems": dict.fromkeys(SYSTEMS, ""), "controls": dict.fromkeys(CONTROLS, ""), "alpha": 0.05}
    files = {name: tmp_path / name for name in tables} | curve_files | {"funnel": tmp_path / "report.parquet"}
    draw_all(**files, output=tmp_path / "figures", **about)
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == set(DRAWN)


def many(fractions: tuple[str, ...] = ("zero",)) -> list[dict]:
    """Points of twenty systems."""
    runs = [(f"system{number}", fraction) for number in range(20) for fraction in fractions]
    return [
        {
            "run": f"{name}-{part}-s1",
            "name": name,
            "fraction": part,
            "seed": "1",
            "step": 10,
            "nll": 2.0,
            "validation": 2.0,
        }
        for name, part in runs
    ]


def test_of_many_systems_no_panel_of_learning_curves_has_more_than_can_be_told_apart():
    names = [f"system{number}" for number in range(20)]
    parts = curves._parts(many(), "zero", names)
    assert [name for part in parts for name in part] == names and max(map(len, parts)) <= curves.MANY


def test_of_many_systems_the_shares_of_data_show_those_that_have_several(tmp_path):
    names = [f"system{number}" for number in range(20)]
    rows = [row | {"system": name, "data": "zero"} for name in names for row in table_rows()[-1:]]
    rows += [row | {"data": "full"} for row in rows[:3]]
    fractions.draw(rows, tmp_path / "fractions.svg", [], names)
    text = (tmp_path / "fractions.svg").read_text()
    assert "system2<" in text and "system3<" not in text


def test_of_many_runs_the_cost_shows_some_forty_bars():
    rows = [{"stage": "finetune", "run": f"r{n}", "seconds": 60.0 + n, "peak_memory_mb": 1.0} for n in range(200)]
    assert len(cost.folded(rows)) <= cost.BARS + 1
