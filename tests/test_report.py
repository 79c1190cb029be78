"""report: the tables of a run in, one page out that holds all of them, runs nothing of a stranger's and asks nobody."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pages
import pytest

from vikdf import case, schemas, textualized, tracking
from vikdf.ablations import NUMBERS
from vikdf.means import METRICS, lower_is_better, read_csv, write_csv
from vikdf.report import compare, cost, examples, extras, pictures, probe, rows, table
from vikdf.report.__main__ import report

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def no_store(monkeypatch):
    monkeypatch.setattr(tracking, "send", lambda folder, store: None)


@pytest.fixture
def made(tmp_path):
    """Writes the page of a made-up run, with these arguments in place of its own; gives its text."""

    def make(seeds=1, **other):
        arguments = pages.written(tmp_path, seeds) | other
        report(**arguments)
        return arguments["output"].read_text()

    return make


class Cells(HTMLParser):
    """The texts of a page's table cells, each with the class of its cell and of its table's body."""

    def __init__(self, text):
        super().__init__()
        self.cells, self.body, self.inside = [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        kind = dict(attrs).get("class") or ""
        if tag == "tbody":
            self.body = kind
        if tag in ("td", "th"):
            self.cells.append([f"{kind} {self.body}", ""])
            self.inside = True

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside:
            self.cells[-1][1] += data


def test_every_value_of_table_1_stands_in_the_page(made):
    texts = [text for _, text in Cells(made()).cells]
    wanted = [f"{row[name]:.2f}" for row in pages.table1(1) for name in METRICS]
    assert [value for value in wanted if not any(text.startswith(value) for text in texts)] == []


def test_best_second_and_significant_are_marked_as_in_the_table_on_paper(made):
    cells = {(kind.strip(), said[:6]) for kind, said in Cells(made()).cells}
    assert ("number best", "70.10*") in cells  # vikdf, full, BLEU-1
    assert ("number second", "69.10*") in cells  # and its quarter
    assert ("number best", "70.706") in cells  # Dis-2 leads without a star: its interval follows


def test_the_papers_numbers_stand_in_cells_of_their_own_that_are_hidden_until_asked_for(made):
    text = made()
    theirs = [(kind, said) for kind, said in Cells(text).cells if said in ("27.32", "15.35", "37.26", "13.41")]
    assert len(theirs) == 4 and all("reported" in kind for kind, _ in theirs)
    assert (
        "body:not(:has(#show-reported:checked)) :is(.reported, .reported-rows, .reported-note) { display: none; }"
        in text
    )
    assert "Reported, not measured here." in text


def test_with_several_seeds_spreads_and_intervals_over_seeds_are_there(made):
    assert "± 0.50" in made(seeds=3) and "thin: over the seeds" in made(seeds=3)
    assert "± 0.50" not in made(seeds=1) and "One seed:" in made(seeds=1)


def test_the_first_system_is_held_against_the_best_and_against_the_best_with_as_much_data():
    means, about = pages.table1(1), {"systems": pages.SYSTEMS, "controls": pages.CONTROLS, "alpha": 0.05}
    tests = pages.pairs(pages.intervals(means, 1))
    reddit, chat = table.glance(means, pages.significance(means), tests, about)
    zero = chat["lines"][-1]
    assert (zero["data"], zero["leads"], zero["sure"], zero["behind"]) == ("zero", 7, 6, "PPL")
    assert zero["alike"] == {"of": 8, "leads": 7, "sure": 7}  # of PPL lower is better, and vikdf's is higher
    assert chat["lines"][1]["alike"] is None  # nobody else has a quarter
    turned = [
        row
        | {
            "a": row["b"],
            "a_data": row["b_data"],
            "b": row["a"],
            "b_data": row["a_data"],
            "difference": -row["difference"],
        }
        for row in tests
    ]
    assert table.glance(means, pages.significance(means), turned, about)[1]["lines"][-1] == zero
    doubtful = [row | {"significant": "no"} for row in tests]  # whatever p is: seeds or another interval disagree
    assert table.glance(means, pages.significance(means), doubtful, about)[1]["lines"][-1]["alike"]["sure"] == 0


def test_what_a_stranger_wrote_is_text(made):
    text = made()
    assert "<img" not in text and "<b>" not in text and "{{ 7 * 7 }}" in text
    assert text.count("</script>") == 2  # the page's own: its data and its code
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;" in text


def test_names_of_systems_are_text_too(made):
    text = made(systems=pages.SYSTEMS | {"vikdf": '"><b>x</b>'})
    assert "<b>" not in text and "&#34;&gt;&lt;b&gt;x&lt;/b&gt;" in text


def test_the_page_names_nothing_outside_of_itself(made):
    text = made()
    links = re.findall(r"""(?:src|href|action|poster)=["']([^"']*)""", text)
    assert [link for link in links if not link.startswith(("#", "data:,"))] == []
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest|WebSocket|eval\(|innerHTML", text)
    assert set(re.findall(r"https?://[^\s\"'<>]+", text)) <= {pictures.SVG, pictures.XLINK}
    assert "default-src 'none'" in text


def test_the_same_tables_give_the_same_page(made):
    assert made() == made()


def test_no_path_of_this_machine_and_no_time_stands_in_the_page(made, tmp_path):
    text = made()
    assert str(tmp_path) not in text and not re.search(r"\b20\d\d-\d\d-\d\d\b", text)


def test_the_answers_are_the_first_of_each_task_and_of_every_system(tmp_path):
    paths = pages.written(tmp_path)["answers"]
    items = examples.items(paths, 3, [*pages.SYSTEMS, *pages.CONTROLS])
    assert [item["id"] for item in items] == ["r0000", "r0001", "r0002", "i0000", "i0001", "i0002", "p1"]
    found = [(answer["data"], answer["system"]) for answer in items[3]["answers"]]
    assert (
        found[:2] == [("full", "vikdf"), ("full", "llm_lora")] and found[-1] == ("zero", "shuffled") and len(found) == 9
    )
    assert {answer["verdict"] for answer in items[-1]["answers"]} == {"right", "wrong"}


def test_answers_to_other_items_are_an_error_that_names_both_files(tmp_path):
    paths = pages.written(tmp_path)["answers"]
    other = [row | {"reference": "another one"} for row in pages.answers("random", "zero")]
    schemas.write(other, tmp_path / "other.parquet", schemas.EXAMPLES)
    with pytest.raises(
        ValueError, match=r"other\.parquet: image_chat i0000 is another item than in .*vikdf-full-s1\.parquet"
    ):
        examples.items([paths[0], tmp_path / "other.parquet"], 3, [])


def test_a_system_that_lacks_an_item_is_an_error(tmp_path):
    paths = pages.written(tmp_path)["answers"]
    schemas.write(pages.answers("random", "eighth")[1:], tmp_path / "other.parquet", schemas.EXAMPLES)
    with pytest.raises(ValueError, match="i0000, i0020: not every system answered"):
        examples.items([paths[0], tmp_path / "other.parquet"], 20, [])


def test_each_pair_of_the_matrix_stands_once_with_its_own_rows(tmp_path):
    arguments = pages.written(tmp_path)
    tasks = compare.compare(read_csv(arguments["intervals"]), read_csv(arguments["pairs"]), pages.CONTROLS)
    chat = next(task for task in tasks if task["name"] == "image_chat")
    ppl = next(metric for metric in chat["metrics"] if metric["name"] == "ppl")
    assert ppl["lower"] and len(ppl["rows"]) == 9 and len(ppl["pairs"]) == 36
    for a, b, difference, *_ in ppl["pairs"]:
        assert difference == pytest.approx(ppl["rows"][a][2] - ppl["rows"][b][2], abs=1e-3)
    assert [row[0] for row in ppl["rows"] if row[7]] == ["random", "shuffled"]
    assert lower_is_better("color_cloze_rank_heldout") and not lower_is_better("bleu1")


def test_the_probe_has_shares_intervals_controls_and_the_guess(tmp_path):
    arguments = pages.written(tmp_path)
    held_out, seen = probe.kinds(read_csv(arguments["probed"]), read_csv(arguments["intervals"]), pages.CONTROLS)
    first = held_out["rows"][0]
    assert held_out["looks"] == ["colour", "place"] and first["cells"][0]["range"] == "0.85 … 0.95"
    assert (first["cells"][0]["text"], first["cells"][0]["floor"]) == ("0.90", 15.0)
    assert [row["system"] for row in held_out["rows"] if row["control"]] == ["random", "shuffled"]
    assert seen["rows"][0]["cells"][0]["range"] == ""  # no interval was given for it


def test_the_cost_of_a_stage_is_the_sum_of_its_jobs():
    stages = cost.stages(pages.costs())
    assert [(line["stage"], line["time"], line["jobs"]) for line in stages] == [
        ("backbones", "2 min 15 s", "1"),
        ("pretrain", "4 min 00 s", "2"),
    ]
    assert cost.total(pages.costs()) == "6 min 16 s" and cost.stages([]) == []


def test_a_run_without_journals_says_so(made, tmp_path):
    pages.written(tmp_path)
    write_csv(tmp_path / "none.csv", ["stage", "run", "seconds"], [])
    assert "these products were made elsewhere" in made(costs=tmp_path / "none.csv")


def test_mlflows_run_of_the_tables_gets_the_page_and_the_drawings_once(tmp_path):
    arguments = pages.written(tmp_path)
    with tracking.Run("tables", "tables", params={}, folder=tmp_path / "state/tables"):
        pass
    report(**arguments)
    report(**arguments)
    added = [line["artifact"] for line in tracking.read(tmp_path / "state/tables") if "artifact" in line]
    assert added == [str(path) for path in [arguments["output"], arguments["costs"], *arguments["figures"]]]


def test_what_else_was_made_stands_in_the_page_and_only_then(made, tmp_path):
    names = ["method", "system", "tuned_params", "image_chat_bleu1", "color_heldout", "seeds", "image_chat_bleu1_sd"]
    line = dict.fromkeys(names) | {"method": "VIKDF", "system": "vikdf", "image_chat_bleu1": 67.1, "seeds": 1}
    write_csv(
        tmp_path / "table3.csv", names, [line, line | {"method": "-TIM", "system": "no_tim", "image_chat_bleu1": 60.0}]
    )
    assert "Without one part" not in made()
    text = made(extra=[tmp_path / "table3.csv"])
    assert "Without one part" in text and extras.LOST not in text
    assert any("reported" in kind and said == "13.80" for kind, said in Cells(text).cells)


def test_peoples_ratings_stand_with_their_intervals_and_agreement(made, tmp_path):
    names = ["system", "relevance", "kappa", "relevance_low", "relevance_high", "dialogues"]
    whole = dict.fromkeys(names) | {"system": "all", "kappa": 0.55, "dialogues": 100}
    line = {
        "system": "vikdf",
        "relevance": 3.5,
        "kappa": 0.6,
        "relevance_low": 3.25,
        "relevance_high": 3.75,
        "dialogues": 100,
    }
    write_csv(tmp_path / "table2.csv", names, [line, whole])
    paper = tmp_path / "paper" / "table2.csv"
    paper.parent.mkdir()
    paper.write_text("method,relevance,kappa\nZRIGF,3.55,0.57\nVIKDF,3.84,0.59\n")
    given = pages.written(tmp_path, 1)["reported"]
    text = made(extra=[tmp_path / "table2.csv"], reported=[*given, paper])
    cells = [said for _, said in Cells(text).cells]
    assert "3.84" in cells and '<tr class="reported-rows"><th scope="row">ZRIGF</th>' in text and "VIKDF" not in cells
    assert "3.50 (3.25 … 3.75)" in cells and "0.60" in cells and "0.55" in cells


def test_the_evidence_stands_with_its_intervals_and_its_drawing(made, tmp_path):
    names = ["contrast", "question", "a", "b", "metric", "difference", "low", "high", "seeds", "favours"]
    line = {
        "contrast": "vision",
        "question": "Is it vision?",
        "a": "vikdf",
        "b": "random",
        "metric": "color_accuracy_all_heldout",
    }
    line |= {"difference": 0.61, "low": 0.57, "high": 0.65, "seeds": 5, "favours": "vikdf"}
    write_csv(tmp_path / "evidence.csv", names, [line, line | {"contrast": ""}])
    (tmp_path / "evidence.svg").write_text(pages.DRAWING.format(name="evidence"))
    text = made(extra=[tmp_path / "evidence.csv", tmp_path / "evidence.svg"])
    assert "Is it vision?" in text and "0.57 … 0.65" in text and 'id="evidence-m"' in text


def test_a_part_of_another_run_says_so(made, tmp_path):
    names = ["queries", "system", "image_chat_bleu1", "seeds"]
    write_csv(
        tmp_path / "figure7.csv", names, [{"queries": 8, "system": "vikdf", "image_chat_bleu1": 61.5, "seeds": 1}]
    )
    assert extras.LOST in made(extra=[tmp_path / "figure7.csv"])


def test_a_missing_or_damaged_table_is_named_with_its_cure(made, tmp_path):
    with pytest.raises(ValueError, match=r"none\.csv is missing: run `snakemake --cores all"):
        made(pairs=tmp_path / "none.csv")
    (tmp_path / "odd.csv").write_bytes(b"task,metric\n\xff\xfe,1\n")
    with pytest.raises(ValueError, match=r"odd\.csv is damaged .* move it away and run .* else bring back"):
        read_csv(tmp_path / "odd.csv")
    for row in ("reddit,bleu1", "reddit,bleu1,many", "reddit,bleu1,1,2"):
        (tmp_path / "bad.csv").write_text(f"task,metric,value\n{row}\n")
        with pytest.raises(ValueError, match=r"bad\.csv is damaged"):
            read_csv(tmp_path / "bad.csv")


def test_two_drawings_share_no_name_and_keep_their_own_references(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.svg").write_text(pages.DRAWING.format(name=name))
    one, two = pictures.inline(tmp_path / "one.svg"), pictures.inline(tmp_path / "two.svg")
    names = [set(re.findall(r'id="([^"]+)"', text)) for text in (one, two)]
    assert names == [{"one-p", "one-m"}, {"two-p", "two-m"}]
    assert 'url(#one-p)"' in one and 'href="#one-m"' in one and "url(#p)" not in one
    assert "color: red" not in one and "width=" not in one.split(">")[0]  # a style would be the whole page's


@pytest.mark.parametrize(
    "inside",
    ["<script>alert(1)</script>", "<foreignObject/>", '<rect onclick="alert(1)"/>', '<image href="https://host/a.png"/>',
     '<a href="javascript:alert(1)"/>', '<rect fill="url(https://host/x#a)"/>', "<rect style=\"fill: url('//host/x')\"/>"],
)  # fmt: skip
def test_a_drawing_that_would_run_or_ask_is_refused(tmp_path, inside):
    (tmp_path / "bad.svg").write_text(f'<svg xmlns="{pictures.SVG}" viewBox="0 0 9 9">{inside}</svg>')
    with pytest.raises(ValueError, match=r"bad\.svg holds"):
        pictures.inline(tmp_path / "bad.svg")


def test_a_harmed_drawing_is_named(tmp_path):
    (tmp_path / "cut.svg").write_text("<svg><g>")
    with pytest.raises(ValueError, match=r"cut\.svg is no drawing that can be read"):
        pictures.inline(tmp_path / "cut.svg")


def test_numbers_are_said_as_people_say_them():
    assert [rows.figure(value) for value in (1503863, 1.469, -0.5, None, "cpu")] == [
        "1,503,863",
        "1.47",
        "−0.50",
        "–",
        "cpu",
    ]
    assert [rows.duration(value) for value in (2.34, 75, 3720, None)] == ["2.3 s", "1 min 15 s", "1 h 02 min", "–"]
    assert rows.title("color_accuracy_all_heldout") == "colour, right of all, held-out nouns"


def test_the_papers_own_tables_are_read_whole():
    reported = read_csv(ROOT / "data/reported/table1.csv")
    assert len(reported) == 22 and reported[-1]["bleu1"] == 15.35 and reported[3]["ppl"] is None


def test_table_4_stands_with_the_papers_numbers_and_figures_5_and_6_with_their_drawings(made, tmp_path):
    numbers = dict.fromkeys(NUMBERS) | {"reddit_bleu1": 12.5, "tuned_params": 7, "seeds": 1}
    rows = [{"method": "LoRA", "llm": "Llama", "backbone": "llm", "system": "llm_lora"} | numbers]
    write_csv(tmp_path / "table4.csv", [*rows[0]], rows)
    case_row = dict.fromkeys(case.COLUMNS, "") | {"system": "vikdf", "data": "zero", "seed": 1, "hypothesis": "<b>red"}
    write_csv(tmp_path / "figure5.csv", case.COLUMNS, [case_row])
    near = dict.fromkeys(textualized.COLUMNS, "a") | {"words": "green in the garden", "rank": 1, "cosine": 0.9}
    write_csv(tmp_path / "figure6.csv", textualized.COLUMNS, [near])
    for name in ("figure5", "figure6"):
        (tmp_path / f"{name}.svg").write_text(pages.DRAWING.format(name=name))
    text = made(extra=sorted(tmp_path.glob("table4.*")) + sorted(tmp_path.glob("figure[56].*")))
    assert "Other language models" in text and "12.50" in text and "14.81" in text  # the last: the paper's
    assert "&lt;b&gt;red" in text and "green in the garden" in text
    assert 'id="figure5-m"' in text and 'id="figure6-m"' in text
