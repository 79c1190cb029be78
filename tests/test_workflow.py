"""The same workflow, tiny, end to end: one run of presets/tiny.yaml in a copy of the tree, looked at by every test.

The tests stand in order: the first ones read what the run made, the later ones change something and look at the plan.
"""

import csv
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from vikdf import seals, verify

ROOT = Path(__file__).resolve().parent.parent
AFTER_THE_ANSWERS = {"evaluate", "significance", "tables", "cost", "figures", "report"}  # rules
SAME = ["table1.csv", "table1.md", "table1.tex", "probe.csv", "significance.csv", "intervals.csv", "pairs.csv"]
TREE = ["Snakefile", "workflow", "profiles", "vikdf", "data/reported"]
COLUMNS = "task,system,data,images,tuned_params,ppl,bleu1,rouge_l,average,extrema,greedy,dis1,dis2,n_test,seeds".split(
    ","
)


def snakemake(place: Path, *words: str) -> subprocess.CompletedProcess:
    command = ["snakemake", "--cores", "2", *words]
    return subprocess.run(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def planned(place: Path, *words: str) -> set[str]:
    """The rules that a run would call now."""
    done = snakemake(place, "--dry-run", *words)
    assert done.returncode == 0, done.stdout
    return set(re.findall(r"^(?:local)?rule (\w+):", done.stdout, flags=re.M)) - {"all"}


def copied(place: Path, preset: str) -> Path:
    """The tree, with this preset as its params, and nothing that a run made."""
    place.mkdir()
    for name in TREE:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, place / name, **({"ignore": shutil.ignore_patterns("__pycache__")} if source.is_dir() else {}))
    shutil.copy(ROOT / f"presets/{preset}.yaml", place / "params.yaml")
    return place


def run_from_clean(place: Path) -> Path:
    done = snakemake(copied(place, "tiny"))
    assert done.returncode == 0, done.stdout[-6000:]
    return place


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    return run_from_clean(tmp_path_factory.mktemp("tiny") / "tree")


@pytest.fixture
def paper(tmp_path) -> tuple[Path, list[Path]]:
    """A tree with the paper's preset, and its raw files, all there, of the right size and with nothing in them."""
    place = copied(tmp_path / "tree", "paper")
    named = re.findall(r"data/raw/[\w./-]+", (place / "params.yaml").read_text())
    raw = [place / path for path in dict.fromkeys(named)]
    entries = yaml.safe_load((place / "params.yaml").read_text())["sources"]["raw"]
    for path in raw:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.truncate(path, entries[str(path.relative_to(place))].get("bytes") or 1)  # holes: no disk is taken
    (place / "data/vectors").mkdir()
    return place, raw


@pytest.fixture
def changed(run):
    """Lets a test change files of the run's tree; puts them back, with their times."""
    kept: dict[Path, tuple[bytes, float]] = {}

    def change(name: str, edit) -> Path:
        path = run / name
        kept[path] = (path.read_bytes(), path.stat().st_mtime_ns)
        edit(path)
        return path

    yield change
    for path, (content, times) in kept.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, ns=(times, times))


def replace(old: str, new: str):
    def edit(path: Path) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return edit


def table(run: Path, name: str) -> list[dict]:
    with open(run / "results" / name) as stream:
        return list(csv.DictReader(stream))


def test_table_1_has_its_columns_in_order_and_a_row_for_every_system_and_amount_of_data(run):
    rows = table(run, "table1.csv")
    assert list(rows[0])[: len(COLUMNS)] == COLUMNS
    assert {row["task"] for row in rows} == {"reddit", "image_chat"}
    params = yaml.safe_load((run / "params.yaml").read_text())
    asked = set(params["baselines"]) - {"chatgpt"}  # without a key it is left out
    assert {row["system"] for row in rows} == set(params["finetune"]["systems"]) | asked
    assert {row["data"] for row in rows if row["system"] == "vikdf"} == {"full", "quarter", "eighth", "zero"}
    assert all(float(row["ppl"]) > 1 and int(row["n_test"]) > 0 for row in rows)


def test_a_model_behind_an_endpoint_is_asked_where_its_key_is_and_else_left_out_with_a_note(run, monkeypatch):
    missing = "not set in the environment: OPENAI_BASE_URL, OPENAI_MODEL, OPENAI_API_KEY"
    assert f"Left out: `chatgpt`, {missing}. No number" in (run / "results/table1.md").read_text()
    for name, value in (("BASE_URL", "http://127.0.0.1:9/v1"), ("MODEL", "any"), ("API_KEY", "sk-secret")):
        monkeypatch.setenv(f"OPENAI_{name}", value)
    done = snakemake(run, "--dry-run", "--printshellcmds", "results/table1.csv")
    rules = set(re.findall(r"^rule (\w+):", done.stdout, flags=re.M))
    assert rules == {"generate", "evaluate", "significance", "tables"}
    assert '"model": "any"' in done.stdout and "sk-secret" not in done.stdout


@pytest.mark.parametrize(
    ("target", "rules"),
    [
        ("core", {"core_significance", "core"}),
        ("results/figure5.svg", {"figure5"}),
        ("results/figure6.svg", {"figure6"}),
        ("results/tuning.csv", {"tried", "tuning"}),
    ],
)
def test_what_stands_beside_table_1_asks_for_nothing_that_is_there(run, target, rules):
    assert planned(run, target) == rules


def test_every_stage_left_its_log_and_nothing_half_written(run):
    stages = [path.stem for path in (run / "workflow/rules").glob("*.smk")]
    assert [stage for stage in stages if not any((run / "logs" / stage).glob("*.log"))] == []
    assert list(run.glob("data/**/*.part")) + list(run.glob("results/**/*.part")) == []


def test_products_hold_no_absolute_path(run):
    found = [path for folder in ("data", "results") for path in (run / folder).rglob("*.json")]
    assert [path for path in found if str(run) in path.read_text()] == []


@pytest.mark.long
def test_two_runs_from_clean_give_byte_equal_tables(run, tmp_path):
    again = run_from_clean(tmp_path / "tree")
    for name in SAME:
        assert (again / "results" / name).read_bytes() == (run / "results" / name).read_bytes(), name


def test_every_product_is_sealed_and_whole(run, monkeypatch):
    monkeypatch.chdir(run)
    rows = [line.split("\t") for line in snakemake(run, "--summary").stdout.splitlines() if "\t" in line]
    made = [row[rows[0].index("output_file")] for row in rows[1:]]
    assert len(made) > 80 and [path for path in made if not seals.sealed(path)] == []
    verify.verify([])


def test_every_job_that_trains_or_scores_is_a_run_in_mlflow(run):
    with sqlite3.connect(run / "mlflow.db") as store:
        runs = store.execute("select name, status from runs").fetchall()
    trained = [f"pretrain-{path.name.replace('-', '-all-')}" for path in (run / "results/pretrain").iterdir()]
    names = {name for name, status in runs if status == "FINISHED"}
    trained += [f"finetune-{path.name}" for path in (run / "results/finetune").iterdir()]
    trained += [f"evaluate-{path.stem}" for path in (run / "results/evaluate").glob("*.parquet")]
    assert "tables" in names and set(trained) <= names
    assert list((run / "mlruns").rglob("artifacts/report.html")), "the ended run `tables` was given the page"


def test_a_second_call_has_nothing_to_do_and_says_so_within_six_seconds(run):
    start = time.monotonic()
    done = snakemake(run, "results/table1.csv")
    assert "Nothing to be done" in done.stdout
    assert time.monotonic() - start < 6


def test_another_loss_weight_runs_pretrain_and_what_follows_and_nothing_before(run, changed):
    changed("params.yaml", replace("tim: 0.5", "tim: 0.4"))
    assert planned(run) == {"pretrain", "finetune", "generate", *AFTER_THE_ANSWERS}


def test_another_line_in_a_metric_runs_evaluate_and_what_follows_only(run, changed):
    changed("vikdf/metrics/bleu.py", lambda path: path.write_text(path.read_text() + "\nTWO = 2\n"))
    assert planned(run) == AFTER_THE_ANSWERS


def commands(place: Path, *words: str) -> dict[str, list[str]]:
    """The commands that a run would call now, by their module."""
    done = snakemake(place, "--dry-run", "--printshellcmds", *words)
    assert done.returncode == 0, done.stdout
    found: dict[str, list[str]] = {}
    for command in re.findall(r"^Shell command: (python -m .*)$", done.stdout, flags=re.M):
        found.setdefault(re.search(r"-m (vikdf[\w.]*)", command).group(1), []).append(command)
    return found


@pytest.mark.parametrize(("stage", "other"), [("pretrain", "finetune"), ("finetune", "pretrain")])
def test_several_processes_are_started_by_torchrun_and_take_as_many_threads_and_gpus(tmp_path, stage, other):
    place = copied(tmp_path / "tree", "tiny")
    alone = commands(place)
    assert all(" torch.distributed" not in said for said in alone["vikdf.pretrain"] + alone["vikdf.finetune"])
    path = place / "params.yaml"
    before, own = path.read_text().split(f"\n{stage}:\n")
    path.write_text(f"{before}\n{stage}:\n" + own.replace("\n    processes: 1", "\n    processes: 2", 1))
    several = commands(place)
    begins = f"python -m torch.distributed.run --standalone --local-addr 127.0.0.1 --nproc-per-node 2 -m vikdf.{stage} "
    assert [said for said in several[f"vikdf.{stage}"] if not said.startswith(begins)] == []
    assert several[f"vikdf.{other}"] == alone[f"vikdf.{other}"]
    job = snakemake(place, "--dry-run").stdout.split(f"rule {stage}:")[1].split("rule ")[0]
    assert "threads: 2" in job and "gpu=2" in job


def test_table_3_and_figure_7_are_planned_with_the_variants_that_they_name_and_nothing_else(tmp_path):
    place = copied(tmp_path / "tree", "demo")
    found = commands(place, "results/table3.csv", "results/figure7.svg")
    variants = {re.search(r"--variant (\w+)", said).group(1): said for said in found["vikdf.pretrain"]}
    ablations = {"no_tim", "no_tamim", "no_iamtm", "no_bvif", "queries_4", "queries_16", "queries_32", "queries_64"}
    assert set(variants) == ablations | {"vikdf"} and len(found["vikdf.pretrain"]) == 9
    for stage in ("vikdf.finetune", "vikdf.generate"):
        assert {re.search(r"--system (\w+) --fraction zero", said).group(1) for said in found[stage]} == set(variants)
    assert '"tim": 0,' in variants["no_tim"] and '"queries": 8,' in variants["no_tim"]
    assert '"queries": 64,' in variants["queries_64"] and '"tim": 0.5' in variants["queries_64"]
    assert '"iakr": 0}' in variants["no_bvif"] and '"iaci_from": "image", "iaci_prompts": [""]' in variants["no_bvif"]
    points = '{"queries_4": 4, "vikdf": 8, "queries_16": 16, "queries_32": 32, "queries_64": 64}'
    assert points in found["vikdf.queries"][0] and "vikdf.tables" not in found


def test_table_1_does_not_ask_for_the_ablations(tmp_path):
    found = commands(copied(tmp_path / "tree", "demo"), "all", "pretrain_all", "finetune_all", "evaluate_all")
    variants = {re.search(r"--variant (\w+)", said).group(1) for said in found["vikdf.pretrain"]}
    assert variants == {"vikdf", "initial", "shuffled", "clip_shuffled"}


def test_a_contrast_with_a_system_that_is_left_out_is_named_where_evidence_is_asked_for_and_only_there(
    tmp_path, monkeypatch
):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    place = copied(tmp_path / "tree", "tiny")
    replace("b: llm_lora,", "b: chatgpt,")(place / "params.yaml")
    assert planned(place, "results/table1.csv")
    done = snakemake(place, "--dry-run", "results/evidence.csv")
    assert done.returncode != 0 and "Traceback" not in done.stdout
    assert "`evidence.contrasts.visual_knowledge` of params.yaml compares chatgpt, which is left out" in done.stdout
    assert "OPENAI_API_KEY): set that, or take the contrast out" in done.stdout


@pytest.mark.long
def test_the_ablations_run_through_to_table_3_and_figure_7(run):
    done = snakemake(run, "results/table3.csv", "results/figure7.svg")
    assert done.returncode == 0, done.stdout[-6000:]
    rows = table(run, "table3.csv")
    assert [row["method"] for row in rows] == ["VIKDF", "-TIM", "-TAMIM", "-IAMTM", "-BVIF"]
    assert all(float(row["reddit_ppl"]) > 1 and row["place_heldout"] for row in rows)
    tuned = {row["method"]: int(row["tuned_params"]) for row in rows}
    assert all(tuned[name] < tuned["VIKDF"] for name in tuned if name != "VIKDF")  # a loss takes its own layers with it
    assert [row["queries"] for row in table(run, "figure7.csv")] == ["2", "4"]
    assert "<svg" in (run / "results/figure7.svg").read_text()


def test_a_mistyped_key_is_named_before_the_first_job(run, changed):
    changed("params.yaml", replace("\nfilter:", "\nfilters:"))
    done = snakemake(run)
    assert done.returncode != 0 and "unknown key `filters`; did you mean `filter`?" in done.stdout
    assert "Traceback" not in done.stdout and "Building DAG" not in done.stdout


def test_a_deleted_shard_is_named_with_its_cure(run, changed):
    changed("data/shards/00000.tar", lambda path: path.unlink())
    done = subprocess.run([sys.executable, "-m", "vikdf.cli", "verify"], cwd=run, capture_output=True, text=True)
    assert done.returncode != 0 and "data/shards/00000.tar is missing" in done.stderr and "cure" in done.stderr


def test_a_corrupted_table_is_named_with_its_cure_and_the_command_to_repeat(run, changed):
    changed("data/filter/pairs.parquet", lambda path: path.write_bytes(b"PAR1 no longer"))
    done = snakemake(run)
    assert done.returncode != 0
    assert "data/filter/pairs.parquet has changed since it was made: `vikdf recover` takes" in done.stdout
    assert "Traceback" not in done.stdout
    assert "To repeat only what failed:" in done.stdout and "snakemake --cores all --allowed-rules" in done.stdout


def test_the_paper_preset_is_planned_to_its_table_when_its_raw_files_are_there(paper):
    place, _ = paper
    stages = {path.stem for path in (place / "workflow/rules").glob("*.smk")}
    assert planned(place) == stages | {"pretrain_baseline", "significance", "cost", "figures", "report"}


def test_a_missing_raw_file_that_must_come_by_hand_is_named_with_what_to_do_before_the_first_job(paper):
    place, raw = paper
    gated = [path for path in raw if path.parent.name in ("cc3m", "reddit")]
    for path in gated:
        path.unlink()
    done = snakemake(place)
    assert done.returncode != 0 and "Traceback" not in done.stdout and "Building DAG" not in done.stdout
    said = re.findall(
        r"^(\S+) is missing: `\S+` of params.yaml names it; by hand: open https://.*, and put it there",
        done.stdout,
        flags=re.M,
    )
    assert sorted({place / path for path in said}) == sorted(set(gated))


def test_a_missing_raw_file_that_has_an_address_is_planned_and_one_that_is_there_is_left_as_it_is(paper):
    place, raw = paper
    raw[0].unlink()
    done = snakemake(place, "--dry-run", "--forceall")
    assert re.findall(r"^rule raw:\n +output: (\S+)", done.stdout, flags=re.M) == [str(raw[0].relative_to(place))]


def test_a_raw_file_that_was_cut_is_named_before_the_first_job(paper):
    place, _ = paper
    os.truncate(place / "data/raw/cc12m/cc12m.tsv", 1000)
    done = snakemake(place, "--dry-run")
    assert done.returncode != 0 and "Traceback" not in done.stdout and "Building DAG" not in done.stdout
    assert "data/raw/cc12m/cc12m.tsv has 1000 bytes, but `sources.raw` says 2707204412; delete it" in done.stdout


def test_a_raw_file_without_an_entry_is_named_with_where_it_was_asked_for(paper):
    place, raw = paper
    (place / "params.yaml").write_text(
        re.sub(r"  raw:.*?(?=\n  timeout)", "  raw: {}", (place / "params.yaml").read_text(), flags=re.S)
    )
    raw[0].unlink()
    done = snakemake(place)
    assert (
        "is missing: `sources.corpora.coco.captions` of params.yaml names it; it has no entry under `sources.raw`"
        in done.stdout
    )
