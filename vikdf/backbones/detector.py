"""A small detector of objects and places from scratch: pictures and boxes in, a transformers folder of YOLOS out.

AutoModelForObjectDetection and AutoImageProcessor load it like any detector of the hub (DETR, RT-DETR ...): a detection is a
class, a box and a feature vector. The classes are the labels of the boxes table; objects get no attributes.
"""

from pathlib import Path

from vikdf import schemas
from vikdf.backbones.optimise import optimise
from vikdf.decode import each_opened

HALF = [0.5, 0.5, 0.5]
OVERLAP = 0.5  # of a detection with a true box, so that it counts as found: Pascal VOC's bound
COSTS = {
    "class_cost": 1,
    "bbox_cost": 5,
    "giou_cost": 2,
    "bbox_loss_coefficient": 5,
    "giou_loss_coefficient": 2,
}  # DETR's
NOTHING = 0.1  # weight of "nothing here" in the loss: DETR's


def make_model(labels: list[str], pixels: int, patch: int, width: int, layers: int, queries: int):
    """YOLOS: a ViT that reads the patches and, beside them, `queries` learned vectors, which become the detections.

    transformers draws small weights and leaves these vectors zero, for folders that are loaded over them. From there a short
    training does not get away: so weights are drawn by their width, and the vectors apart from each other.
    """
    import torch
    from transformers import YolosConfig, YolosForObjectDetection

    shape = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": width // 32}
    shape |= {"intermediate_size": 4 * width, "image_size": [pixels, pixels], "patch_size": patch}
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    more = {"num_detection_tokens": queries, "use_mid_position_embeddings": False, "eos_coefficient": NOTHING}
    model = YolosForObjectDetection(YolosConfig(**shape, **names, **more, **COSTS, initializer_range=width**-0.5))
    first = model.vit.embeddings
    for vectors in (first.cls_token, first.detection_tokens, first.position_embeddings):
        torch.nn.init.normal_(vectors)
    return model


def make_processor(pixels: int):
    from transformers import YolosImageProcessor

    size = {"height": pixels, "width": pixels}
    return YolosImageProcessor(size=size, image_mean=HALF, image_std=HALF, do_pad=False)


def train(
    *,
    pairs: Path,
    boxes: Path,
    output: Path,
    seed: int,
    steps: int,
    batch: int,
    learning_rate: float,
    pixels: int,
    patch: int,
    width: int,
    layers: int,
    queries: int,
    must_find: float,
) -> dict:
    """DETR's set loss on all but a tenth of the pictures; returns how often that tenth's boxes are found and named."""
    import numpy as np
    import torch

    images, targets, labels = prepare(pairs, boxes, make_processor(pixels))
    torch.manual_seed(seed)
    model = make_model(labels, pixels, patch, width, layers, queries)
    held = len(images) // 10
    rng = np.random.default_rng(seed)

    def loss() -> torch.Tensor:
        rows = rng.integers(held, len(images), batch)
        return model(pixel_values=images[rows], labels=[targets[row] for row in rows]).loss

    final = optimise(model, loss, steps=steps, learning_rate=learning_rate, name=output.name)
    scores = found(model, images[:held], targets[:held])
    if scores["object_right"] < must_find:
        raise ValueError(
            f"the detector names {scores['object_right']:.2f} of the held-back objects, expected {must_find}: give it more "
            "steps, or lower must_find of its entry in backbones.models"
        )
    model.save_pretrained(output)
    make_processor(pixels).save_pretrained(output)
    return {"loss": final, "held_back": held, "classes": len(labels), **scores}


def prepare(pairs: Path, boxes: Path, processor) -> tuple:
    """Pictures [N, 3, S, S]; of each its classes [b] and boxes [b, 4] (centre and size, 0 to 1); the classes' names."""
    import torch

    table = schemas.read(pairs, schemas.PAIRS, ["key", "image"])
    opened = [*each_opened(table["image"].to_pylist(), pairs)]
    images = processor(images=opened, return_tensors="pt")["pixel_values"]
    marked = schemas.read(boxes, schemas.BOXES).to_pylist()
    labels = sorted({row["label"] for row in marked})
    place = {label: number for number, label in enumerate(labels)}
    of: dict[str, list[dict]] = {key: [] for key in table["key"].to_pylist()}
    for row in marked:
        if row["key"] not in of:
            raise ValueError(
                f"{boxes} has a box in {row['key']}, which {pairs} does not hold: give tables of one world"
            )
        of[row["key"]].append(row)
    targets = []
    for rows, picture in zip(of.values(), opened, strict=True):
        at = torch.tensor([[row[side] for side in ("left", "top", "right", "bottom")] for row in rows]).reshape(-1, 4)
        at = at / torch.tensor([picture.width, picture.height] * 2)
        spans = torch.cat([(at[:, :2] + at[:, 2:]) / 2, at[:, 2:] - at[:, :2]], dim=1)
        classes = torch.tensor([place[row["label"]] for row in rows], dtype=torch.int64)  # also where there is none
        targets.append({"class_labels": classes, "boxes": spans})
    return images, targets, labels


def found(model, images, targets: list[dict]) -> dict:
    """Of the true boxes, apart for objects and whole pictures: the share that is found and rightly named, and the overlap.

    A box belongs to the detection that overlaps it most, of those that say something; below OVERLAP it is not found.
    """
    import torch
    from torchvision.ops import box_convert, box_iou

    right, overlap = {"object": [], "whole": []}, {"object": [], "whole": []}
    for start in range(0, len(images), 100):
        with torch.no_grad():
            made = model(pixel_values=images[start : start + 100])
        said = made.logits.argmax(-1)  # [B, Q]
        for row, target in enumerate(targets[start : start + 100]):
            told = said[row] < made.logits.shape[-1] - 1  # [Q]
            corners = [box_convert(each, "cxcywh", "xyxy") for each in (target["boxes"], made.pred_boxes[row])]
            shared = box_iou(*corners).masked_fill(~told, 0)  # [b, Q]
            for box, true, near in zip(target["boxes"], target["class_labels"], shared, strict=True):
                kind = "whole" if box[2:].min() == 1 else "object"
                overlap[kind].append(near.max().item())
                right[kind].append(near.max().item() >= OVERLAP and said[row][near.argmax()].item() == true.item())
    scores = {f"{kind}_right": sum(each) / max(1, len(each)) for kind, each in right.items()}
    return scores | {f"{kind}_overlap": sum(each) / max(1, len(each)) for kind, each in overlap.items()}
