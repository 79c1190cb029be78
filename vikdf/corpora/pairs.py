"""Reads image-text corpora in the forms in which they are published; a new form is one function and its line in FORMS.

In: an entry of sources.corpora, {form: ..., and what the form asks for}. Out: its rows, one a picture, in a fixed order:

    {captions, url, status, width, height, image, line}   line: the row's place in the file (or archive) that lists it

status is empty where the picture is still to be fetched, `ok` where it is there, else the reason why the row has none.
Reasons beside those of tables.py, archives.py and download.py: bad_row (a value of another kind than text), long_caption,
missing_column (of a .jsonl or .json), missing (listed, but not there), other_file (in a folder of pictures, and neither
picture nor caption).
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

from vikdf import files, tars
from vikdf.corpora import archives, jsons, tables
from vikdf.corpora.addresses import Limits
from vikdf.corpora.pictures import examine
from vikdf.decode import SUFFIXES

PENDING = ""  # the status of a row whose picture is still to be fetched
LONGEST_CAPTION = 10_000  # characters; the longest published ones have some 2,000
LONGEST_URL = 8_000  # characters; hosts refuse longer ones
SIDECAR_BYTES = 1 << 20
TAKEN = ("all", "failures", "reason", "unit")  # names in sources' and filter's reports, so no corpus'
SYSTEM_FILES = (".DS_Store", "Thumbs.db", "desktop.ini")  # what systems leave in every folder


def row(captions: list[str], url: str = "", status: str = PENDING, line: int = 0, **picture) -> dict:
    empty = {"width": None, "height": None, "image": None}
    return {"captions": captions, "url": url, "status": status, "line": line} | empty | picture


def wrong_text(text, longest: int, too_long: str) -> str:
    """What is wrong with a caption or url; empty for a sound one."""
    if not isinstance(text, str):
        return "bad_row"
    if len(text) > longest:
        return too_long
    if "\0" in text:
        return "nul_bytes"
    return "" if text.isascii() or jsons.sound(text) else "not_utf8"


def wrong_caption(caption) -> str:
    return wrong_text(caption, LONGEST_CAPTION, "long_caption")


def _several(caption) -> list:
    return caption if isinstance(caption, list) else [caption]


def _first_wrong(captions: list) -> str:
    return next(filter(None, map(wrong_caption, captions)), "")


def _listed(caption, url, line: int) -> dict:
    """A row of a list: a url with a caption, or with a list of several."""
    captions = _several(caption)
    wrong = _first_wrong(captions) or wrong_text(url, LONGEST_URL, "bad_url")
    return row([], "", wrong, line) if wrong else row(captions, url.strip(), PENDING, line)


def _seen(archive: archives.Archive, file, captions: list[str], limits: Limits, line: int, url: str = "") -> dict:
    """A row whose picture lies in an archive."""
    status, data = archive.read(file, limits.max_bytes)
    if status:
        return row(captions, url, status, line)
    status, width, height = examine(data, limits.max_pixels)
    return row(captions, url, status, line, width=width, height=height, image=data if status == "ok" else None)


def read_coco(*, captions: str, images: str | None, limits: Limits) -> Iterator[dict]:
    """One row an image of the json, with all its captions; captions of an image that is not listed are rows of their own.

    Without a folder or zip of images they are fetched from the addresses that the json names.
    """
    said: dict[int | str, list[str]] = {}
    lost: list[dict] = []
    for line, (annotation, _) in enumerate(jsons.elements(captions, "annotations"), 1):
        found = annotation if isinstance(annotation, dict) else {}
        image, caption = found.get("image_id"), found.get("caption")
        wrong = "" if isinstance(image, int | str) else "bad_row"
        if wrong := wrong or wrong_caption(caption):
            lost.append(row([], status=wrong, line=line))
        else:
            said.setdefault(image, []).append(caption)
    with archives.opened(Path(images)) if images else contextlib.nullcontext() as archive:
        for line, (image, _) in enumerate(jsons.elements(captions, "images"), 1):
            yield _coco_image(archive, image, said, limits, line)
    yield from (row([caption], status="bad_row") for captions in said.values() for caption in captions)
    yield from lost


def _coco_image(archive: archives.Archive | None, image, said: dict, limits: Limits, line: int) -> dict:
    known = isinstance(image, dict) and isinstance(image.get("id"), int | str)
    if not known or wrong_text(image.get("file_name"), LONGEST_URL, "bad_row"):
        return row([], status="bad_row", line=line)
    url = image.get("coco_url") or ""
    url = "" if wrong_text(url, LONGEST_URL, "bad_url") else url.strip()
    texts = said.pop(image["id"], [])
    return (
        _seen(archive, archive.find(image["file_name"]), texts, limits, line, url)
        if archive
        else row(texts, url, line=line)
    )


def _table(path: str, columns: list[str] | None, url: str, caption: str, form: str = "") -> Iterator[dict]:
    for line, found in tables.of_parts(Path(path), columns, [url, caption], form):
        if isinstance(found, str):
            yield row([], status=found, line=line)
        elif url in found and caption in found:
            yield _listed(found[caption], found[url], line)
        else:
            yield row([], status="missing_column", line=line)


def read_cc3m(*, list: str, limits: Limits) -> Iterator[dict]:
    return _table(list, ["caption", "url"], "url", "caption", "tsv")


def read_cc12m(*, list: str, limits: Limits) -> Iterator[dict]:
    return _table(list, ["url", "caption"], "url", "caption", "tsv")


def read_list(*, list: str, url: str | int, caption: str | int, limits: Limits) -> Iterator[dict]:
    """Any table of url and caption, or a folder of such: columns by name, or by number (from 0) where there is no header."""
    _check_columns(list, url, caption)
    return _table(list, [] if isinstance(url, int) else None, str(url), str(caption))


def _check_columns(where: str, url: str | int, caption: str | int) -> None:
    if isinstance(url, int) != isinstance(caption, int):
        said = f"url is {url!r} and caption {caption!r}"
        raise ValueError(f"{where}: {said}, expected two names of columns, or two numbers where there is no header")


def read_sbu(*, list: str, limits: Limits) -> Iterator[dict]:
    """One json of parallel lists, read side by side."""
    urls, captions = jsons.elements(list, "image_urls"), jsons.elements(list, "captions")
    for line, (url, _) in enumerate(urls, 1):
        caption = next(captions, None)
        if caption is None:
            raise ValueError(f"{list} holds more urls than captions ({line - 1}), expected as many: fetch it again")
        yield _listed(caption[0], url, line)
    if next(captions, None) is not None:
        raise ValueError(f"{list} holds more captions than urls, expected as many: fetch it again")


def read_folder(
    *, images: str, captions: str | None, limits: Limits, file: str = "file", caption: str = "caption"
) -> Iterator[dict]:
    """Pictures of a folder, zip or tar, captioned by a table (columns `file` and `caption`) or by a .txt or .json beside each."""
    told, lost = _captions_by_file(captions, file, caption) if captions else ({}, [])
    with archives.opened(Path(images)) as archive:
        passed_over = _not_for_rows(archive, Path(images), captions)
        for line, each in enumerate(archive.files, 1):
            last = each.name.rpartition("/")[2]
            if each.name in passed_over or last in SYSTEM_FILES:
                continue
            if not _is_picture(each.name):
                yield row([], status=each.bad or "other_file", line=line)
                continue
            name = each.name if each.name in told or not archive.by_last.get(last) else last
            said, wrong = (told.pop(name, ([], 0))[0], "") if captions else _beside(archive, each.name)
            yield row([], status=wrong, line=line) if wrong else _seen(archive, each, said, limits, line)
    yield from (row(said, status="missing", line=line) for said, line in told.values())
    yield from lost


def _not_for_rows(archive: archives.Archive, images: Path, captions: str | None) -> set[str]:
    """The files that tell of others: the table, or the .txt and .json that stand beside a picture."""
    if captions:
        table, folder = Path(captions).resolve(), images.resolve()
        return {table.relative_to(folder).as_posix()} if table.is_relative_to(folder) else set()
    stems = {each.name.rpartition(".")[0] for each in archive.files if _is_picture(each.name)}
    return {f"{stem}.{end}" for stem in stems for end in ("txt", "json")} & archive.by_name.keys()


def _is_picture(name: str) -> bool:
    return name.rpartition(".")[2].lower() in SUFFIXES


def _captions_by_file(path: str, file: str, caption: str) -> tuple[dict[str, tuple[list[str], int]], list[dict]]:
    """File name -> (captions, line of the first); and the rows of the table that tell none."""
    told: dict[str, tuple[list[str], int]] = {}
    lost = []
    for line, found in tables.rows(Path(path), wanted=[file, caption]):
        wrong = found if isinstance(found, str) else "" if {file, caption} <= found.keys() else "missing_column"
        if not wrong:
            texts = _several(found[caption])
            wrong = wrong_text(found[file], LONGEST_URL, "bad_row") or _first_wrong(texts)
        if wrong:
            lost.append(row([], status=wrong, line=line))
        else:
            told.setdefault(found[file], ([], line))[0].extend(texts)
    return told, lost


def _beside(archive: archives.Archive, name: str) -> tuple[list[str], str]:
    """(captions, what is wrong) from <stem>.json, else from <stem>.txt."""
    stem = name.rpartition(".")[0]
    parts = {end: archive.by_name[f"{stem}.{end}"] for end in ("json", "txt") if f"{stem}.{end}" in archive.by_name}
    read = {}
    for end, found in parts.items():
        wrong, read[end] = archive.read(found, SIDECAR_BYTES)
        if wrong and wrong != "empty_file":
            return [], wrong
    return _captions(read)[:2]


def _captions(parts: dict[str, bytes]) -> tuple[list[str], str, str]:
    """(captions, what is wrong, url) from the bytes of a .json and a .txt: the json's `captions` or `caption`, else the text."""
    about: dict | str = {}
    try:
        if parts.get("json"):
            about = jsons.sound_object(parts["json"].decode())
        text = parts.get("txt", b"").decode().strip()
    except UnicodeDecodeError:
        return [], "not_utf8", ""
    if isinstance(about, str):
        return [], about, ""
    said = about.get("captions", about.get("caption"))
    said = said if isinstance(said, list) else [said] if said is not None else [text] if text else []
    url = about.get("url") or ""
    url = "" if wrong_text(url, LONGEST_URL, "bad_url") else url.strip()
    wrong = _first_wrong(said)
    return ([], wrong, url) if wrong else (said, "", url)


def read_webdataset(*, shards: str, limits: Limits) -> Iterator[dict]:
    """A folder of tars in the order of their names, or one tar: img2dataset's output, and our own shards."""
    folder = Path(shards)
    tars.check_there(folder, folder=True)
    paths = sorted(folder.glob("*.tar")) if folder.is_dir() else [folder]
    if not paths:
        raise ValueError(f"{shards} holds no .tar: expected webdataset's shards")
    line = 0
    for path in paths:
        tars.check_there(path)
        with open(path, "rb") as stream:
            for _, parts in tars.samples(tars.members(path)):
                line += 1
                bad = next(iter(parts.values())).bad
                yield row([], status=bad, line=line) if bad else _sample(stream, parts, limits, line)


def _sample(stream, parts: dict[str, tars.Member], limits: Limits, line: int) -> dict:
    """One sample: the picture, and a .json or .txt with the caption."""

    def read(file: archives.File, most: int) -> bytes:
        stream.seek(file.place)
        return stream.read(min(file.size, most))

    archive = archives.Archive(
        [archives.File(end, part.size, part.bad, part.offset) for end, part in parts.items()], read
    )
    told = {}
    for end in ("json", "txt"):
        if end in parts:
            wrong, told[end] = archive.read(archive.find(end), SIDECAR_BYTES)
            if wrong and wrong != "empty_file":
                return row([], status=wrong, line=line)
    said, wrong, url = _captions(told)
    picture = next((end for end in SUFFIXES if end in parts), None)
    if wrong or picture is None:
        return row([], url, wrong or "missing", line)
    return _seen(archive, archive.find(picture), said, limits, line, url)


FORMS: dict[str, Callable[..., Iterator[dict]]] = {
    "coco": read_coco,
    "cc3m": read_cc3m,
    "cc12m": read_cc12m,
    "sbu": read_sbu,
    "list": read_list,
    "folder": read_folder,
    "webdataset": read_webdataset,
}


def check_entries(corpora: dict) -> None:
    """Raises a ValueError for a name that cannot be, an entry of an unknown form, or with other keys than its form has."""
    for name, entry in corpora.items():
        files.check_name(name, "sources.corpora", TAKEN)
        where = f"sources.corpora.{name}"
        if not isinstance(entry, dict):
            raise ValueError(f"{where} is {entry!r}: expected an entry such as {{form: cc3m, list: FILE}}")
        if entry.get("form") not in FORMS:
            raise ValueError(f"unknown form {entry.get('form')!r} in {where}: expected one of {', '.join(FORMS)}")
        known = dict(inspect.signature(FORMS[entry["form"]]).parameters)
        known.pop("limits")
        needed = {key for key, value in known.items() if value.default is inspect.Parameter.empty}
        if wrong := sorted(entry.keys() - known.keys() - {"form", "expected"} | needed - entry.keys()):
            said = f"{where}: the form {entry['form']} takes {', '.join(known)}"
            raise ValueError(f"{said}; `{wrong[0]}` is {'unknown' if wrong[0] in entry else 'missing'}")
        if entry["form"] == "list":
            _check_columns(where, entry["url"], entry["caption"])


def is_list(entry: dict) -> bool:
    """True for a corpus that only lists addresses: its pictures are fetched."""
    return entry["form"] in ("cc3m", "cc12m", "sbu", "list") or (entry["form"] == "coco" and not entry["images"])
