"""Human evaluation without a browser: what the sheets hold and hide, which files are refused, and how far raters agree."""

import base64
import collections
import csv
import io
import itertools
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from ratings import DIALOGUES, GIVEN, photograph, responses, returned, row, study

from vikdf import cli, files, schemas
from vikdf.human import SCALE, agreement
from vikdf.human.ratings import COLUMNS, NAMED
from vikdf.human.table import interval, table

GOLD = Path(__file__).resolve().parents[2] / "shared/data/metric_gold/gold_values.json"
HEAD = ",".join(COLUMNS).encode()  # a CSV without a line
WIKIPEDIA = [  # counts of 14 raters, 5 categories; statsmodels' test names 0.21
    *([0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1]),
    *([7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]),
]


@pytest.fixture
def key(tmp_path):
    return study(tmp_path)


def shown(folder: Path, rater: int) -> dict:
    text = (folder / "human" / "sheets" / f"rater-{rater}.html").read_text()
    return json.loads(text.split('id="sheet">')[1].split("</script>")[0])


def send(folder: Path, key: dict, change=lambda told, rater: None, raters=(1, 2, 3)) -> list[Path]:
    """The files that raters send back, with a change in them."""
    paths = []
    for rater in raters:
        told = returned(key, rater)
        change(told, rater)
        paths.append(folder / f"ratings-{rater}.json")
        paths[-1].write_text(json.dumps(told))
    return paths


def count(folder: Path, paths: list[Path], **flags) -> str:
    wanted = {"key": folder / "human" / "key.json", "without": [], "output": folder / "table2.csv"}
    return table(returned=paths, **wanted | flags)


def refused(folder: Path, paths: list[Path], **flags) -> str:
    with pytest.raises(ValueError) as error:
        count(folder, paths, **flags)
    assert not (folder / "table2.csv").exists()
    return str(error.value)


# ---- the sheets


def test_a_page_tells_no_system_and_no_dialogue_of_the_test_set(key, tmp_path):
    for path in (tmp_path / "human" / "sheets").iterdir():
        text = path.read_text().lower()
        assert not [name for name in [*GIVEN, *DIALOGUES, "seed"] if name in text]


def test_the_key_is_its_owners_alone(key, tmp_path):
    assert (tmp_path / "human" / "key.json").stat().st_mode & 0o777 == 0o600


def test_every_rater_gets_every_dialogue_with_the_answers_of_all_systems(key, tmp_path):
    for rater in (1, 2, 3):
        items = key["raters"][str(rater)]["items"]
        assert sorted(item["dialogue"] for item in items) == DIALOGUES
        assert all(sorted(item["systems"]) == sorted(GIVEN) for item in items)
        texts = [answer for each in shown(tmp_path, rater)["dialogues"] for answer in each["answers"]]
        backwards = [system[::-1] for item in items for system in item["systems"]]
        assert all(not text or text.endswith(end) for text, end in zip(texts, backwards, strict=True))


def test_a_systems_place_on_the_page_tells_nothing(tmp_path):
    """Over 300 pages of dialogues each of three systems stands first in about a third: chi-square of 2, 1 in 1,000."""
    paths = responses(tmp_path, [f"d{number:03}" for number in range(100)], ["a", "b", "c"])
    made = study(tmp_path, paths, dialogues=100)
    items = [item["systems"] for rater in made["raters"].values() for item in rater["items"]]
    for place in range(3):
        found = collections.Counter(systems[place] for systems in items)
        assert sum((found[system] - 100) ** 2 / 100 for system in "abc") < 13.8


def test_each_rater_has_an_order_of_their_own(tmp_path):
    paths = responses(tmp_path, [f"d{number:03}" for number in range(50)])
    made = study(tmp_path, paths, dialogues=50)
    orders = [[item["dialogue"] for item in rater["items"]] for rater in made["raters"].values()]
    assert len({tuple(order) for order in orders}) == 3 and len({tuple(sorted(order)) for order in orders}) == 1
    letters = [
        {item["dialogue"]: tuple(item["systems"]) for item in rater["items"]} for rater in made["raters"].values()
    ]
    assert all(
        one != other for one, other in itertools.combinations(letters, 2)
    )  # nor is A of a dialogue the same for all


def test_the_same_files_and_seed_give_the_same_bytes(tmp_path):
    paths = responses(tmp_path)
    study(tmp_path, paths, output=tmp_path / "one")
    study(tmp_path, paths, output=tmp_path / "two")
    study(tmp_path, paths, output=tmp_path / "three", seed=2)
    one, two, three = (files.sha256(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two != three


def test_which_dialogues_are_drawn_does_not_depend_on_the_systems(tmp_path):
    names = [f"d{number:03}" for number in range(50)]
    paths = responses(tmp_path, names, ["a", "b", "c"])
    drawn = [study(tmp_path, some, dialogues=10, output=tmp_path / str(len(some))) for some in (paths[:1], paths)]
    one, two = ({item["dialogue"] for item in made["raters"]["1"]["items"]} for made in drawn)
    assert one == two and len(one) == 10


def test_answers_that_name_a_system_are_counted_and_told(tmp_path, capsys):
    rows = [row("a", "vikdf", hypothesis="I am VIKDF."), row("b", "vikdf", hypothesis="hello")]
    schemas.write(rows, tmp_path / "s.parquet", schemas.RESPONSES)
    flags = ["--responses", str(tmp_path / "s.parquet"), "--dialogues", "2", "--output", str(tmp_path / "human")]
    cli.main(["human", "sheet", *flags])
    assert "answers that hold the name of a system: 1" in capsys.readouterr().out


def test_only_the_task_and_the_fraction_that_were_asked_for_are_rated(tmp_path):
    rows = [row("a", "s"), row("b", "s", task="reddit"), row("c", "s", data="full"), row("p", "s", task="probe")]
    schemas.write(rows, tmp_path / "s.parquet", schemas.RESPONSES)
    made = study(tmp_path, [tmp_path / "s.parquet"], dialogues=1)
    assert [item["dialogue"] for item in made["raters"]["1"]["items"]] == ["a"]


def test_sheets_of_an_examples_file_are_made_as_well(tmp_path):
    made = [{name: each.get(name) for name in schemas.EXAMPLES.names} for each in (row("a", "s"), row("b", "s"))]
    schemas.write(made, tmp_path / "s.parquet", schemas.EXAMPLES)
    assert study(tmp_path, [tmp_path / "s.parquet"], dialogues=2)["systems"][0]["name"] == "s"


def test_the_key_of_other_sheets_is_never_overwritten(key, tmp_path):
    before = (tmp_path / "human" / "key.json").read_bytes()
    study(tmp_path)  # the same again: nothing is lost
    with pytest.raises(ValueError, match="is the key of other sheets"):
        study(tmp_path, seed=2)
    assert (tmp_path / "human" / "key.json").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dialogues": 5}, "--dialogues is 5: .*/vikdf.parquet has 4; expected 1 to 4"),
        ({"raters": 0}, "--raters is 0: expected 1 to 99"),
        ({"task": "reddit"}, "has no answer for the task reddit at data zero, but for image_chat at zero"),
        ({"data": "full"}, "name another file, --task or --data"),
    ],
)
def test_a_flag_that_does_not_fit_is_named(tmp_path, changes, said):
    with pytest.raises(ValueError, match=said):
        study(tmp_path, **changes)


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ([row("a", "vikdf"), row("b", "vikdf")], "both hold answers of vikdf: give one file a system"),
        ([row("a", "other")], "answer different dialogues, b is in one alone"),
        ([row("a", "other"), row("b", "other", context=["hm"])], "differ in what b says"),
        ([row("a", "other"), row("a", "other")], "answers some dialogues twice"),
        ([row("a", "other"), row("b", "other", seed=2)], "more than one model, such as other with seed 2"),
    ],
)
def test_files_that_cannot_be_compared_are_named(tmp_path, second, said):
    for name, rows in {"one": [row("a", "vikdf"), row("b", "vikdf")], "two": second}.items():
        schemas.write(rows, tmp_path / f"{name}.parquet", schemas.RESPONSES)
    with pytest.raises(ValueError, match=said):
        study(tmp_path, [tmp_path / "one.parquet", tmp_path / "two.parquet"], dialogues=2)


# ---- pictures


def test_a_picture_stands_in_the_page_small_upright_and_without_what_the_camera_wrote(tmp_path):
    from PIL import Image

    made = study(tmp_path, pictures=photograph(tmp_path / "pictures", DIALOGUES))
    told = shown(tmp_path, 1)
    data = base64.b64decode(told["dialogues"][0]["picture"].removeprefix("data:image/jpeg;base64,"))
    picture = Image.open(io.BytesIO(data))
    assert picture.size == (320, 640) and not picture.getexif() and not re.search(b"at home|by its owner", data)
    assert "and the picture?" in told["criteria"][0]["question"] and made["pictures"]


def test_without_pictures_relevance_asks_of_the_text_alone_and_the_table_says_so(key, tmp_path):
    assert "picture" not in shown(tmp_path, 1)["criteria"][0]["question"]
    assert "Relevance was asked of the text alone" in count(tmp_path, send(tmp_path, key))


def test_a_dialogue_without_a_picture_and_a_damaged_picture_are_named(tmp_path):
    folder = photograph(tmp_path / "pictures", DIALOGUES)
    (folder / f"{DIALOGUES[2]}.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=f"{DIALOGUES[2]}.jpg is damaged"):
        study(tmp_path, pictures=folder)
    (folder / f"{DIALOGUES[2]}.jpg").unlink()
    with pytest.raises(ValueError, match=f"lacks the pictures of 1 of the 4 dialogues drawn, such as {DIALOGUES[2]}"):
        study(tmp_path, pictures=folder)
    assert not (tmp_path / "human").exists()


# ---- what comes back


def first(told: dict) -> dict:
    return told["ratings"][0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda told: first(told).update(fluency=6), "dialogue 1, answer A: fluency is 6: expected 1 to 5"),
        (lambda told: first(told).update(fluency=0), "fluency is 0: expected 1 to 5"),
        (lambda told: first(told).update(fluency=4.5), "fluency is 4.5: expected 1 to 5"),
        (lambda told: first(told).update(fluency=True), "fluency is true: expected 1 to 5"),
        (lambda told: first(told).update(fluency="4"), 'fluency is "4": expected 1 to 5'),
        (lambda told: first(told).update(fluency=[[]]), "fluency is [[]]: expected 1 to 5"),
        (lambda told: first(told).update(fluency=None), "dialogue 1, answer A: fluency is missing"),
        (lambda told: first(told).pop("relevance"), "dialogue 1, answer A: relevance is missing"),
        (lambda told: told["ratings"].pop(), "dialogue 4, answer B is missing"),
        (lambda told: told["ratings"].append(told["ratings"][2]), "dialogue 2, answer A comes twice"),
        (lambda told: first(told).update(answer="C"), 'dialogue 1, answer "C" is not on the sheet of rater 2'),
        (lambda told: first(told).update(dialogue=1.0), 'dialogue 1.0, answer "A" is not on the sheet of rater 2'),
        (lambda told: first(told).update(dialogue=[]), 'dialogue [], answer "A" is not on the sheet of rater 2'),
        (lambda told: told.update(sheet="0" * 64), "is of another sheet (000000000000)"),
        (lambda told: told.update(sheet=None), "is of another sheet (None)"),
        (lambda told: told.update(ratings={}), "holds no ratings"),
        (lambda told: told.update(ratings=[1]), "holds no ratings"),
    ],
)
def test_what_is_wrong_is_named_with_its_file_and_place(key, tmp_path, change, said):
    told = refused(tmp_path, send(tmp_path, key, lambda told, rater: change(told) if rater == 2 else None))
    assert said in told and str(tmp_path / "ratings-2.json") in told and "ratings-1.json" not in told


def test_faults_of_all_files_are_told_at_once_and_counted_beyond_some(key, tmp_path):
    told = refused(tmp_path, send(tmp_path, key, lambda told, rater: [each.pop("fluency") for each in told["ratings"]]))
    assert told.count("fluency is missing") == NAMED and f"and {3 * 8 - NAMED} more" in told


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"{", b"[" * 100_000, b"a,b\n1,2\n", b"\0", b"[]", b'"x"', HEAD])
def test_a_file_that_is_none_of_ours_is_a_sentence(key, tmp_path, text):
    paths = send(tmp_path, key)
    paths[1].write_bytes(text)
    assert "ratings-2.json" in refused(tmp_path, paths)


def test_a_number_without_end_is_named_with_its_place(key, tmp_path):
    paths = send(tmp_path, key)
    paths[1].write_text(paths[1].read_text().replace('"relevance": ', f'"relevance": {"9" * 5000}', 1))
    assert f"{paths[1]}: dialogue 1, answer A: relevance is " in refused(tmp_path, paths)


def test_a_rater_who_sent_nothing_is_named_and_may_be_left_out_by_name(key, tmp_path):
    paths = send(tmp_path, key, raters=(1, 3))
    assert "nothing came from rater 2" in refused(tmp_path, paths)
    assert "whom --without leaves out" in refused(tmp_path, paths, without=["1", "2"])
    assert "--without names rater 7" in refused(tmp_path, paths, without=["7"])
    assert "2 raters" in count(tmp_path, paths, without=["2"]) and "Left out" in count(tmp_path, paths, without=["2"])


def test_two_files_of_one_rater_are_named(key, tmp_path):
    paths = send(tmp_path, key)
    assert "are both of rater 1: keep the one that counts" in refused(tmp_path, [*paths, paths[0]])


@pytest.mark.parametrize(
    "change", [lambda text: text[:50], lambda text: text.replace("vikdf", "other"), lambda text: "[]"]
)
def test_a_key_that_was_changed_is_not_used(key, tmp_path, change):
    path = tmp_path / "human" / "key.json"
    path.write_text(change(path.read_text()))
    said = refused(tmp_path, send(tmp_path, key))
    assert str(path) in said and "copy key.json anew" in said and "delete it" not in said


def test_a_csv_that_a_spreadsheet_program_wrote_anew_counts_the_same(key, tmp_path):
    paths = send(tmp_path, key)
    count(tmp_path, paths)
    before = (tmp_path / "table2.csv").read_bytes()
    told = returned(key, 2)
    rows = [{"sheet": told["sheet"], "rater": 2} | each for each in told["ratings"]]
    with open(tmp_path / "two.csv", "w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.DictWriter(stream, [*rows[0]], delimiter=";")
        writer.writeheader()
        writer.writerows(reversed(rows))
        stream.write(";;;;;;\r\n")
    count(tmp_path, [paths[0], tmp_path / "two.csv", paths[2]])
    assert (tmp_path / "table2.csv").read_bytes() == before


# ---- the table


def test_the_table_and_its_print_hold_every_system_and_the_agreement_over_all(key, tmp_path):
    page = count(tmp_path, send(tmp_path, key))
    with open(tmp_path / "table2.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [each["system"] for each in rows] == [*GIVEN, "all"]
    assert rows[0]["relevance"] == "4.1667" and rows[2]["relevance"] == "" and rows[2]["kappa"]
    assert rows[0]["kappa_informativeness"] == rows[0]["alpha_informativeness"] == ""  # all gave 2
    assert "4.17 [3.33, 4.83]" in page and "4 dialogues of image_chat at data zero, 3 raters" in page


def test_one_rater_gives_means_and_no_agreement(tmp_path):
    made = study(tmp_path, raters=1)
    count(tmp_path, send(tmp_path, made, raters=(1,)))
    with open(tmp_path / "table2.csv", newline="") as stream:
        assert {(each["kappa"], each["alpha"]) for each in csv.DictReader(stream)} == {("", "")}


def test_the_interval_covers_the_mean_as_often_as_it_says():
    """200 draws of 100 dialogues; 95 % of them, give or take three standard errors of that share."""
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        low, high = interval(random.binomial(4, 0.6, size=(100, 3)).mean(axis=1) + 1, seed=1)
        hits += low <= 1 + 4 * 0.6 <= high
    assert 181 <= hits <= 199


def test_fleiss_kappa_agrees_with_the_published_values():
    assert agreement.fleiss_kappa(WIKIPEDIA) == pytest.approx(0.21, abs=5e-4)
    assert agreement.fleiss_kappa([[7, 1], [3, 5]]) == pytest.approx(0.161905, abs=5e-7)
    assert agreement.fleiss_kappa([[6, 1, 0], [0, 7, 0]]) == pytest.approx(0.708333, abs=5e-7)
    assert agreement.fleiss_kappa([[7, 0], [0, 7]]) == 1


@pytest.mark.skipif(not GOLD.exists(), reason=f"{GOLD} is not here")
def test_fleiss_kappa_agrees_with_every_gold_table():
    gold = json.loads(GOLD.read_text())["fleiss_kappa_published"]
    assert agreement.fleiss_kappa(gold["wikipedia_table"]) == pytest.approx(gold["kappa"], abs=5e-4)
    for counts, kappa in gold["others"]:
        assert agreement.fleiss_kappa(counts) == pytest.approx(kappa, abs=5e-7)
    ratings = agreement.counts(gold["fleiss1971"]["ratings_30x6"], SCALE)
    assert agreement.fleiss_kappa(ratings) == pytest.approx(gold["fleiss1971"]["kappa"], abs=5e-8)


def test_kappa_and_alpha_equal_plain_code_on_random_ratings():
    """Kappa by nltk's multi-pi, which is the same; alpha by its definition, pair by pair."""
    from nltk.metrics.agreement import AnnotationTask

    draw = random.Random(0)
    for _ in range(20):
        rows = [[draw.choice(SCALE) for _ in range(3)] for _ in range(8)]
        triples = [(rater, item, value) for item, values in enumerate(rows) for rater, value in enumerate(values)]
        kappa = agreement.fleiss_kappa(agreement.counts(rows, SCALE))
        assert kappa == pytest.approx(AnnotationTask(data=triples).pi())
        within = np.mean([(a - b) ** 2 for values in rows for a, b in itertools.permutations(values, 2)])
        anyhow = np.mean([(a - b) ** 2 for a, b in itertools.permutations(itertools.chain(*rows), 2)])
        assert agreement.krippendorff_alpha(rows) == pytest.approx(1 - within / anyhow)


def test_kappa_needs_as_many_ratings_of_every_item():
    with pytest.raises(ValueError, match="same number of ratings"):
        agreement.fleiss_kappa([[3, 0], [2, 0]])


# ---- from the command line


def test_the_commands_make_sheets_and_the_table(tmp_path, capsys):
    paths = [str(path) for path in responses(tmp_path)]
    cli.main(["human", "sheet", "--responses", *paths, "--dialogues", "4", "--output", str(tmp_path / "human")])
    assert "4 dialogues of image_chat at data zero, 2 answers to each: 24 ratings a rater" in capsys.readouterr().out
    key = tmp_path / "human" / "key.json"
    sent = [str(path) for path in send(tmp_path, json.loads(key.read_text()))]
    cli.main(["human", "table", *sent, "--key", str(key), "--output", str(tmp_path / "table2.csv")])
    assert "relevance" in capsys.readouterr().out


def test_nobody_has_rated_yet_is_a_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["human", "table", "x.json", "--key", str(tmp_path / "key.json")])
    assert "it lies where `vikdf human sheet` wrote the sheets" in capsys.readouterr().err
