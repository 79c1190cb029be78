"""`vikdf human sheet`: the pages that raters fill in, and the key.

In: answers of the systems (EXAMPLES or RESPONSES), one file a system. Out: below the folder `sheets/rater-<n>.html`, one page
a rater, to be sent to people, and `key.json`, which says whose each answer is and stays here.
Each rater gets the same dialogues with the answers of every system, in an order of their own. No page tells a system:
its answers are A, B, ... in an order drawn for each dialogue and rater, from the seed and a digest of the files, which
raters do not have.
"""

import base64
import hashlib
import json
from pathlib import Path

from vikdf import files, schemas
from vikdf.human import CRITERIA, LETTERS, SCALE, WITH_PICTURE, ratings
from vikdf.human import pictures as pictured

SHOWN = ["id", "task", "system", "data", "seed", "context", "hypothesis"]  # both schemas have these
PARTS = Path(__file__).parent
MOST_RATERS = 99


def sheet(
    *,
    responses: list[Path],
    task: str,
    data: str,
    dialogues: int,
    raters: int,
    seed: int,
    output: Path,
    pictures: Path | None = None,
) -> dict:
    """Writes the pages and the key; gives the key."""
    if not 1 <= raters <= MOST_RATERS:
        raise ValueError(f"--raters is {raters}: expected 1 to {MOST_RATERS}")
    answers = read(responses, task, data)
    drawn = sample(answers, dialogues, seed, responses)
    secret = files.digest(["human evaluation", seed, task, data, [files.sha256(path) for path in responses]])
    seen = pictured.read(pictures, drawn) if pictures else {}
    key = {"seed": seed, "task": task, "data": data, "dialogues": dialogues, "pictures": bool(seen), "raters": {}}
    key["systems"] = [  # in the order of the flags: the table's rows
        {"name": system, "file": path.name, "sha256": files.sha256(path), "seed": next(iter(rows.values()))["seed"]}
        for path, (system, rows) in zip(responses, answers.items(), strict=True)
    ]
    key["telling"] = telling(answers, drawn)
    pages = {}
    for rater in range(1, raters + 1):
        placed = order(secret, rater, drawn, list(answers))
        content = payload(rater, placed, answers, seen)
        pages[rater] = page(content)
        items = [{"dialogue": name, "systems": systems} for name, systems in placed]
        key["raters"][str(rater)] = {"page": f"rater-{rater}.html", "sheet": content["digest"], "items": items}
    key["digest"] = files.digest(key)
    write(output, key, pages)
    return key


def read(responses: list[Path], task: str, data: str) -> dict[str, dict[str, dict]]:
    """System -> id -> row, of the task and fraction; every system must have answered the same dialogues."""
    if not 1 <= len(responses) <= len(LETTERS):
        raise ValueError(f"--responses names {len(responses)} files: expected 1 to {len(LETTERS)}, one a system")
    found: dict[str, dict[str, dict]] = {}
    source: dict[str, Path] = {}
    for path in responses:
        rows = _rows(path, task, data)
        system = rows[0]["system"]
        if system in found:
            raise ValueError(f"{path} and {source[system]} both hold answers of {system}: give one file a system")
        found[system], source[system] = {row["id"]: row for row in rows}, path
        if len(found[system]) < len(rows):
            raise ValueError(f"{path} answers some dialogues twice: make it anew with `snakemake --cores all {path}`")
        _assert_same(found[system], path, *next(iter(found.items())), next(iter(source.values())))
    return found


def _rows(path: Path, task: str, data: str) -> list[dict]:
    table = schemas.read(path, schemas.RESPONSES, SHOWN).to_pylist()
    rows = [row for row in table if (row["task"], row["data"]) == (task, data)]
    if not rows:
        there = sorted({f"{row['task']} at {row['data']}" for row in table})
        raise ValueError(
            f"{path} has no answer for the task {task} at data {data}, but for {', '.join(there) or 'nothing'}: "
            "name another file, --task or --data"
        )
    if several := sorted({f"{row['system']} with seed {row['seed']}" for row in rows})[1:]:
        raise ValueError(f"{path} holds answers of more than one model, such as {several[0]}: give one file a system")
    return rows


def _assert_same(rows: dict, path: Path, first: str, others: dict, other_path: Path) -> None:
    if alone := sorted(rows.keys() ^ others.keys()):
        raise ValueError(
            f"{path} and {other_path} answer different dialogues, {alone[0]} is in one alone: give files of one test set"
        )
    for name in sorted(rows):
        if rows[name]["context"] != others[name]["context"]:
            raise ValueError(f"{path} and {other_path} differ in what {name} says: give files of one test set")


def sample(answers: dict[str, dict], dialogues: int, seed: int, responses: list[Path]) -> list[str]:
    """Which dialogues are rated: drawn by the seed from those of the test set, whatever the systems."""
    there = next(iter(answers.values()))
    if not 1 <= dialogues <= len(there):
        raise ValueError(f"--dialogues is {dialogues}: {responses[0]} has {len(there)}; expected 1 to {len(there)}")
    return shuffled(there, seed, "which dialogues")[:dialogues]


def telling(answers: dict[str, dict], drawn: list[str]) -> int:
    """How many answers to the drawn dialogues hold the name of a system: these are not blind, whatever the page hides."""
    texts = [(rows[name]["hypothesis"] or "").lower() for rows in answers.values() for name in drawn]
    return sum(any(system.lower() in text for system in answers) for text in texts)


def order(secret: str, rater: int, drawn: list[str], systems: list[str]) -> list[tuple[str, list[str]]]:
    """The dialogues as this rater meets them, and the systems behind A, B, ... of each."""
    return [(name, shuffled(systems, secret, rater, name)) for name in shuffled(drawn, secret, rater)]


def shuffled(names, *draw) -> list[str]:
    """The names in an order that depends on them and the draw alone: the same with any version of any library."""
    return sorted(names, key=lambda name: files.digest([*draw, name]))


def payload(rater: int, placed: list[tuple[str, list[str]]], answers: dict[str, dict], seen: dict[str, str]) -> dict:
    """All that a page holds. Its digest names the sheet: the page keeps progress under it, and returned files carry it."""
    asked = WITH_PICTURE if seen else {}
    criteria = [
        {"name": name, "question": asked.get(name, question), "low": low, "high": high}
        for name, (question, low, high) in CRITERIA.items()
    ]
    dialogues = [
        {
            "context": [turn or "" for turn in answers[systems[0]][name]["context"] or []],
            "answers": [answers[system][name]["hypothesis"] or "" for system in systems],
        }
        | ({"picture": seen[name]} if seen else {})
        for name, systems in placed
    ]
    content = {"rater": rater, "scale": SCALE, "letters": LETTERS, "criteria": criteria, "pictures": bool(seen)}
    content["dialogues"] = dialogues
    return content | {"digest": files.digest(content)}


def page(content: dict) -> str:
    """One HTML file that needs nothing else, and may ask for nothing: its policy allows its own script and style alone."""
    import jinja2

    style, script = ((PARTS / name).read_text() for name in ("page.css", "page.js"))
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    policy = f"default-src 'none'; base-uri 'none'; form-action 'none'; style-src {_source(style)}; script-src {_source(script)}"
    policy += "; img-src data:" if content["pictures"] else ""
    whole = template.from_string((PARTS / "page.html").read_text())
    return whole.render(sheet=content, policy=policy, style=style, script=script)


def _source(text: str) -> str:
    """A text as a content security policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def write(output: Path, key: dict, pages: dict[int, str]) -> None:
    """The key is written first, for its owner alone; another study's key is never overwritten: its ratings need it."""
    path = output / "key.json"
    if path.exists() and ratings.read_key(path)["digest"] != key["digest"]:
        raise ValueError(
            f"{path} is the key of other sheets, whose ratings could not be read without it: "
            "give another --output, or delete it if nobody rates those"
        )
    with files.whole(path) as aside:
        aside.touch(mode=0o600)
        aside.write_text(json.dumps(key, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    for rater, text in pages.items():
        with files.whole(output / "sheets" / f"rater-{rater}.html") as aside:
            aside.write_text(text, encoding="utf-8")
