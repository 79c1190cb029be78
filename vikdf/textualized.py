"""Figure 6 of the paper: what VIKDF knows of a dialogue: K in words, the picture drawn from K, the training pictures nearest to K.

In: VIKDF as pretraining left it and as it was tuned on Reddit, test dialogues, the shards that it learned from.
Out: figure6.csv (a row a dialogue and picture), figure6.svg (the same, with the pictures).
Run: python -m vikdf.textualized --tuned results/finetune/vikdf-zero-s1 ... --output results ... (the rule `figure6`)

Words and drawing are of the tuned system, which answers: the LLM reads K and an instruction, and no word of the dialogue. Nearest
are the pictures whose own K, of the IQ-Former as pretraining left it, has the highest TIM similarity to that of the dialogue:
there texts and pictures learned to meet. No dialogue was ever seen with a picture.
"""

from pathlib import Path

from vikdf import flags, schemas, tracking
from vikdf.case import INCH, at, wrapped, write
from vikdf.figures import style
from vikdf.means import TASKS, write_csv

COLUMNS = ["task", "id", "context", "reference", "words", "rank", "key", "cosine", "caption"]
BATCH = 100  # pictures at once
SIDE = 0.95  # inches of a picture
TITLE = "What VIKDF knows of a dialogue"


def textualized(
    *,
    pretrained: Path,
    tuned: Path,
    dialogues: Path,
    shards: Path,
    backbones: Path,
    output: Path,
    state_root: Path,
    figure6: dict,
    precision: str,
) -> None:
    """Figure 6: K of some test dialogues in words, drawn, and beside the nearest pictures of training.

    pretrained: VIKDF as pretraining left it
    tuned: the same, tuned on Reddit
    dialogues: the table of the task's dialogues
    shards: folder of the shards
    backbones: folder of the backbones
    output: folder of figure6.csv and figure6.svg
    state_root: the folder `state`; the journal that feeds MLflow lies below it
    figure6: {task, places, nearest, among}: dialogues by their places in the test set, so many pictures each, out of so many
    precision: float32 | bfloat16: of the frozen parts, and of the reckoning
    """
    rows = picked(dialogues, figure6["places"])
    known = told(tuned, backbones, [row["context"] for row in rows], precision)
    near = nearest(pretrained, backbones, shards, [row["context"] for row in rows], figure6, precision)
    write_csv(
        output / "figure6.csv",
        COLUMNS,
        [line for parts in zip(rows, known, near, strict=True) for line in lines(*parts)],
    )
    draw(rows, known, near, output / "figure6.svg")
    with tracking.Run("figure6", "figure6", params=figure6, folder=state_root / "figure6") as run:
        run.log(0, {"dialogues": len(rows)})
        for name in ("figure6.csv", "figure6.svg"):
            run.artifact(output / name)


def picked(path: Path, places: list[float]) -> list[dict]:
    """The test dialogues at these places, each once."""
    import pyarrow.compute as pc

    table = schemas.read(path, schemas.DIALOGUES)
    rows = table.filter(pc.equal(table["split"], "test"))
    if not rows.num_rows:
        raise ValueError(f"{path} has no row in the split 'test': see `dialogues` in params.yaml")
    return rows.take(list(dict.fromkeys(at(place, rows.num_rows) for place in places))).to_pylist()


def told(folder: Path, backbones: Path, contexts: list[list[str]], precision: str) -> list[dict]:
    """K in words, and drawn where the model learned to draw."""
    from vikdf import VIKDF, place

    model = place.put(VIKDF.from_pretrained(folder, backbones=backbones), precision)
    with place.autocast(precision):
        words = [model.textualize(turns) for turns in contexts]
        drawn = [model.draw(turns) if model.tamim is not None else None for turns in contexts]
    return [{"words": text, "drawn": picture} for text, picture in zip(words, drawn, strict=True)]


def nearest(
    folder: Path, backbones: Path, shards: Path, contexts: list[list[str]], figure6: dict, precision: str
) -> list[list[dict]]:
    """Of each dialogue its nearest pictures, best first: key, cosine, caption, picture."""
    import torch

    from vikdf import place
    from vikdf.model import checkpoint
    from vikdf.model.vikdf import VIKDFForPretraining
    from vikdf.samples import Shards

    found = checkpoint.find_parts(folder, {"clip": None, "llm": None}, backbones)
    model, held = VIKDFForPretraining.load(folder, **found), Shards(shards)
    model = place.put(model, precision).eval()
    rows = spread(held, figure6["among"])
    with torch.no_grad():
        with place.autocast(precision):
            K = model.knowledge([" ".join(turns) for turns in contexts])
            text = model.tim.embed(K, model.tim.text)  # [dialogues, D]
            pictures = torch.cat([_seen(model, held, rows[i : i + BATCH]) for i in range(0, len(rows), BATCH)])
        cosines = model.tim.cosines(text, pictures)  # [dialogues, pictures]; a plain product: there are few dialogues
    made = []
    for line in cosines:
        best = line.argsort(descending=True, stable=True)[: figure6["nearest"]].tolist()
        made.append([_about(held[rows[i]], line[i].item()) for i in best])
    return made


def spread(shards, most: int) -> list[int]:
    """Rows of the shards, each picture once; of more than `most` some at equal distances."""
    first = {}
    for row, name in enumerate(shards.index["image_sha256"].to_pylist()):
        first.setdefault(name, row)
    rows = [*first.values()]
    count = min(most, len(rows))
    return [rows[place * len(rows) // count] for place in range(count)]


def _seen(model, shards, rows: list[int]):
    """TIM's vectors of pictures [B, D]."""
    import torch

    clip = model.source.clip
    pixels = torch.stack([clip.preprocess(shards[row]["image"]) for row in rows])
    K = model.source.iqformer(clip.image(pixels.to(model.source.into_llm.weight.device)), None)  # [B, n, D]
    return model.tim.embed(K, model.tim.image)


def _about(sample: dict, cosine: float) -> dict:
    return {"key": sample["key"], "cosine": cosine, "caption": sample["captions"][0], "picture": sample["image"]}


def lines(row: dict, known: dict, near: list[dict]) -> list[dict]:
    """Rows of figure6.csv of one dialogue."""
    head = {"task": row["task"], "id": row["id"], "context": "\n".join(row["context"]), "reference": row["response"]}
    head["words"] = known["words"]
    return [
        head | {"rank": rank, **{name: each[name] for name in ("key", "cosine", "caption")}}
        for rank, each in enumerate(near, 1)
    ]


def draw(rows: list[dict], known: list[dict], near: list[list[dict]], path: Path) -> None:
    """A dialogue after the other: its turns, K in words, then the drawing and the nearest pictures in one row."""
    texts = []
    for row, each in zip(rows, known, strict=True):
        turns = [("", "", False)] if texts else []  # a line between two dialogues
        turns += [line for number, turn in enumerate(row["context"], 1) for line in wrapped(f"turn {number}", turn)]
        texts.append([*turns, *wrapped("K in words", each["words"] or "(nothing)")])
    heights = [part for text in texts for part in (INCH * len(text), SIDE + 0.35)]
    about = "; ".join(f"{' / '.join(row['context'])}: {each['words']}" for row, each in zip(rows, known, strict=True))
    about = f"{TASKS.get(rows[0]['task'], rows[0]['task'])}. {about}"
    with style.figure(path, "figure6", title=TITLE, about=about, height=0.1 + sum(heights)) as made:
        parts = made.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        for number, text in enumerate(texts):
            write(parts[2 * number].subplots(), text)
            _row(parts[2 * number + 1], known[number]["drawn"], near[number])


def _row(part, drawn, near: list[dict]) -> None:
    panels = part.subplots(1, 1 + len(near), squeeze=False)[0]
    _picture(panels[0], drawn, "drawn from K" if drawn else "no drawing: distilled without TAMIM")
    for panel, each in zip(panels[1:], near, strict=True):
        caption = "\n".join(text for _, text, _ in wrapped("", each["caption"], 100 // (1 + len(near)), 2))
        _picture(panel, each["picture"], f"{each['cosine']:.2f}\n{caption}")


def _picture(panel, picture, said: str) -> None:
    """At most as large as it is drawn: a page with photographs as they are would be of megabytes."""
    panel.set_axis_off()
    panel.set_title(said, fontsize=6.5)
    if picture is not None:
        small = picture.copy()
        small.thumbnail((160, 160))
        panel.imshow(small, interpolation="none")


if __name__ == "__main__":
    flags.main(textualized)
