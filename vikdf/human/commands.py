"""The flags of `vikdf human sheet` and `vikdf human table`; vikdf.cli reads them. What works is imported when it is asked for."""

import argparse
from pathlib import Path

from vikdf.flags import printable

SHEET = """
OUTPUT/sheets/ gets a page for each rater: send rater-1.html to one person, rater-2.html to the next. It works from the file,
without network, on a computer or a phone, keeps what was rated, and gives a file to send back. OUTPUT/key.json says whose
each answer is: keep it to yourself, nothing can be counted without it.
Name one file a system. The same files and seed give the same sheets.

The paper asks whether an answer fits the context and the image. With --pictures the page shows a picture to each dialogue and
asks so; without, the raters see and rate the text alone, and `vikdf human table` says it.

examples
  vikdf human sheet --responses results/generate/{llm_zero_shot,llm_lora,vikdf}-zero-s1.parquet
  vikdf human sheet --responses A.parquet B.parquet --pictures test_pictures     with image_chat-test-0000367.jpg and so on
"""
TABLE = """
Every rating is checked before any is counted: missing, doubled or out of range, it is named with its file, dialogue and answer.
OUTPUT is a CSV with a row a system: means with bootstrap intervals, Fleiss' kappa, Krippendorff's alpha. The same is printed.
The report shows results/table2.csv once it is made again: snakemake --cores all results/report.html

examples
  vikdf human table ratings-1-*.json ratings-2-*.json ratings-3-*.json
  vikdf human table ratings-1-*.json ratings-3-*.csv --without 2       rater 2 sent nothing
"""


def sheet(given: argparse.Namespace) -> None:
    from vikdf.human import CRITERIA
    from vikdf.human import sheet as sheets

    names = ("responses", "task", "data", "dialogues", "raters", "seed", "output", "pictures")
    key = sheets.sheet(**{name: getattr(given, name) for name in names})
    count, dialogues = len(key["systems"]), key["dialogues"]
    asked = f"{dialogues * count * len(CRITERIA)} ratings a rater"
    print(f"{dialogues} dialogues of {key['task']} at data {key['data']}, {count} answers to each: {asked}")
    pages = given.output / "sheets"
    for rater, entry in key["raters"].items():
        print(f"  rater {rater}: send {pages / entry['page']}")
    if key["telling"]:
        print(
            f"  answers that hold the name of a system: {key['telling']}; whoever knows the names is not blind to these"
        )
    print(f"  keep {given.output / 'key.json'}: `vikdf human table` needs it; do not send it")


def table(given: argparse.Namespace) -> None:
    from vikdf.human import table as tables

    page = tables.table(key=given.key, returned=given.returned, without=given.without, output=given.output)
    print(printable(page))
    print(f"\n{given.output}")


def sheet_flags(one: argparse.ArgumentParser, results: Path) -> None:
    said = "answers of a system: what generate or evaluate wrote, one file a system"
    one.add_argument("--responses", nargs="+", type=Path, required=True, metavar="FILE.parquet", help=said)
    for name, value, meaning in (
        ("task", "image_chat", "the task, as in the paper's Table 2"),
        ("data", "zero", "the fraction of the training data, as in the paper's Table 2"),
        ("dialogues", 100, "how many are rated, drawn from the test set"),
        ("raters", 3, "how many people rate"),
        ("seed", 1, "which dialogues are drawn, and every order"),
    ):
        metavar = "N" if isinstance(value, int) else "NAME"
        said = f"{meaning} (default: %(default)s)"
        one.add_argument(f"--{name}", type=type(value), default=value, metavar=metavar, help=said)
    said = "a picture for each dialogue, named by its id (default: the text alone)"
    one.add_argument("--pictures", type=Path, metavar="FOLDER", help=said)
    said = "where sheets/ and key.json are written (default: %(default)s)"
    one.add_argument("--output", type=Path, default=results / "human", metavar="FOLDER", help=said)


def table_flags(one: argparse.ArgumentParser, results: Path) -> None:
    said = "what the raters sent back, JSON or CSV, one file a rater"
    one.add_argument("returned", nargs="+", type=Path, metavar="FILE", help=said)
    said = "key.json of the sheets (default: %(default)s)"
    one.add_argument("--key", type=Path, default=results / "human" / "key.json", metavar="FILE", help=said)
    said = "raters who sent nothing: the table is made of the others and says so"
    one.add_argument("--without", nargs="+", default=[], metavar="N", help=said)
    said = "the table (default: %(default)s)"
    one.add_argument("--output", type=Path, default=results / "table2.csv", metavar="FILE.csv", help=said)


COMMANDS = {  # name -> what it does in a line, more help, its flags, and what it does with them
    "sheet": ("write blinded rating pages for people, and the key", SHEET, sheet_flags, sheet),
    "table": ("check the raters' files and make Table 2 of them", TABLE, table_flags, table),
}
