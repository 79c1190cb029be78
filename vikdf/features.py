"""What the frozen CLIP makes of pictures and captions: computed once, on disk, shared by all pretrainings with that CLIP.

In: a folder of shards and a CLIP as it runs. Out: <state_root>/features/<key of the encoder>/ with encoder.json (what the
features depend on), pictures/ and captions/ in pieces (arrays and, last, manifest.json), product.json when all are there.
Run ahead of the training: python -m vikdf.features --shards data/shards --clip data/backbones/clip --state-root state ...

A picture is found by the sha256 of its bytes, a caption by that of its text: other shards add only what is new. An encoder
that differs in a weight, in how it prepares pictures or cuts texts, in its numbers or its code has another folder; a folder
that holds another encoder's features is refused. Pieces are checked as the cache is opened, and damaged ones made again.
Rows are copied out of mapped files, so memory holds what a batch needs. The folder may be deleted at any time.

Shapes: B batch, L tokens of the longest text, P image patches + 1, E joint width, S side of the picture.
"""

import contextlib
import functools
import hashlib
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vikdf import files, flags, space, state
from vikdf.signals import Signals, stop, unheard

PIECE = 256  # entries computed at once, and kept as one piece: what a kill costs at most
LEAST = 16  # rows computed at once: in batches of one or two, matrix products on a CPU take other sums (seen)
MAPS = 128  # files of a kind mapped at a time: each holds a file descriptor
MAPPED = 2**28  # bytes read before all maps are let go, so that what was read does not stay in memory
PROBE = ("a red kettle", "two dogs, running: on the beach! 3 o'clock", "Ünïcode \N{GRINNING FACE} & <b>")


def fingerprint(clip, device: torch.device) -> dict[str, str]:
    """Name -> digest of all that features depend on; a change of the libraries shows in the prepared picture or the tokens."""
    y, x, colour = np.ogrid[:61, :97, :3]
    from PIL import Image

    picture = Image.fromarray(((x * 5 + y * 3 + x * y // 7 + colour * 40) % 256).astype(np.uint8))
    made = {f"the file {name}": digest for name, digest in files.contents(clip.folder).items()}
    made["the preparation of pictures"] = hashlib.sha256(clip.preprocess(picture).numpy().tobytes()).hexdigest()
    made["the cutting of texts"] = files.digest(clip.tokenize(list(PROBE)).tolist())
    made["the numbers"] = f"{next(clip.parameters()).dtype} on {device.type}, torch {torch.__version__}"
    made["the encoder's code"] = state.code_digest(["model.encoders"])
    return made


def levels(clip) -> Tensor:
    """What becomes of each of the 256 values of a colour: [3, 256]. Most encoders' prepared pictures hold nothing else."""
    from PIL import Image

    side = (clip.pixels, clip.pixels)
    flat = [clip.preprocess(Image.new("RGB", side, (value,) * 3))[:, 0, 0] for value in range(256)]
    return torch.stack(flat, dim=1)


def coded(pixels: Tensor, table: Tensor) -> Tensor:
    """Prepared pictures [n, 3, S, S] in 8 bits, where the table gives back every bit of them; else as they are."""
    low, high = table[:, :1, None], table[:, -1:, None]
    codes = ((pixels - low) / (high - low) * 255).round().clamp(0, 255).long()
    back = torch.stack([table[i][codes[:, i]] for i in range(3)], dim=1)
    return codes.to(torch.uint8) if torch.equal(back, pixels) else pixels


class Pieces:
    """Entries on disk by key; an entry is a stretch of rows of each array of its piece."""

    def __init__(self, folder: Path):
        self.folder, self.places, self.read = folder, {}, 0
        self.mapped = functools.lru_cache(maxsize=MAPS)(self._mapped)

    def open(self, clear: bool = False) -> None:
        """Takes in the pieces that are whole; with `clear` the others go."""
        for path in sorted(self.folder.glob("[0-9a-f]*")):
            manifest = sound(path)
            if manifest:
                self._take(path.name, manifest)
            elif clear:
                print(f"{path} is damaged: it is made again", file=sys.stderr)
                shutil.rmtree(path)

    def add(self, keys: list[str], ends: list[int], arrays: dict[str, Tensor]) -> None:
        """Writes a piece; entry i has the rows from the end of the one before to ends[i]."""
        manifest = {"keys": keys, "ends": ends}
        name = _name(manifest)
        with files.whole(self.folder / name) as aside:
            aside.mkdir()
            for array, values in arrays.items():  # numpy knows no bfloat16: its bits are kept
                bits = values.view(torch.int16) if values.dtype == torch.bfloat16 else values
                np.save(aside / f"{array}.npy", bits.contiguous().numpy(), allow_pickle=False)
            manifest["sha256"] = {array: files.sha256(aside / f"{array}.npy") for array in arrays}
            files.write_checked(aside / "manifest.json", manifest)
        self._take(name, manifest)

    def _take(self, name: str, manifest: dict) -> None:
        starts = [0, *manifest["ends"][:-1]]
        for key, start, end in zip(manifest["keys"], starts, manifest["ends"], strict=True):
            self.places[key] = (name, start, end)

    def _mapped(self, name: str, array: str) -> np.ndarray:
        return np.load(self.folder / name / f"{array}.npy", mmap_mode="r", allow_pickle=False)

    def gather(self, keys: list[str], array: str, read=None) -> Tensor:
        """[B, rows of the longest entry, ...], zero where an entry is shorter; `read` makes of an entry what is gathered."""
        found = []
        for name, start, end in (self.places[key] for key in keys):
            rows = self.mapped(name, array)[start:end]
            self.read += rows.nbytes
            found.append(rows if read is None else read(rows))
        made = np.zeros((len(keys), max(map(len, found)), *found[0].shape[1:]), found[0].dtype)
        for row, rows in zip(made, found, strict=True):
            row[: len(rows)] = rows
        del found, rows
        if self.read > MAPPED:
            self.mapped.cache_clear()
            self.read = 0
        made = torch.from_numpy(made)
        return made.view(torch.bfloat16) if made.dtype == torch.int16 else made


def _name(manifest: dict) -> str:
    """A piece is named by what it holds and in which order, so that a changed manifest does not fit its name."""
    return files.digest([manifest["keys"], manifest["ends"]])[:16]


def sound(piece: Path) -> dict | None:
    """The manifest of a piece whose every byte is as it was written, else None."""
    try:
        manifest = files.read_checked(piece / "manifest.json")
        held = {path.stem: files.sha256(path) for path in piece.glob("*.npy")}
        return manifest if _name(manifest) == piece.name and held == manifest["sha256"] else None
    except (ValueError, FileNotFoundError, KeyError, TypeError, AttributeError):  # none, or not one of ours any more
        return None


class Features:
    """The features in one folder, for one encoder."""

    def __init__(self, folder: Path, clip, device: torch.device, encoder: dict[str, str] | None = None):
        self.folder, self.clip, self.device = folder, clip, device
        self.encoder = encoder or fingerprint(clip, device)
        self.pictures, self.captions = Pieces(folder / "pictures"), Pieces(folder / "captions")
        self.levels = levels(clip)
        self._check()

    def _check(self) -> None:
        if self.folder.name == key(self.encoder):
            return  # the name says it; encoder.json tells it to people
        path = self.folder / "encoder.json"
        found = files.read_checked(path) if path.exists() else {}
        kept = any(self.folder.glob("*/[0-9a-f]*"))
        if changed := sorted(name for name in found.keys() | self.encoder if found.get(name) != self.encoder.get(name)):
            if found or kept:
                raise ValueError(
                    f"{self.folder} holds the features of another encoder than {self.clip.folder}: {', '.join(changed)} "
                    "differ. Delete that folder, and the next training makes its features anew"
                )

    def complete(self, shards, workers: int = 0) -> "Features":
        """Opens what is there, and makes what these shards need beside it. Several processes: one makes, the others wait."""
        pictures = {sha256: row for row, sha256 in enumerate(shards.index["image_sha256"].to_pylist())}
        captions = {_key(text): text for texts in shards.index["captions"].to_pylist() for text in texts}
        for alone in (False, True):
            wait = f"{self.folder} is in use by another process: waiting until it ends"
            with files.alone(self.folder / "lock", str(self.folder), wait=wait, shared=not alone):
                for pieces in (self.pictures, self.captions):
                    pieces.open(clear=alone)
                wanted = [row for sha256, row in pictures.items() if sha256 not in self.pictures.places]
                texts = sorted(text for key, text in captions.items() if key not in self.captions.places)
                if not wanted and not texts and self.counts():
                    break
                if alone:
                    self._make(shards, wanted, texts, workers)
        return self

    def _make(self, shards, rows: list[int], texts: list[str], workers: int) -> None:
        from tqdm import tqdm

        each = space.features(self.clip, next(self.clip.parameters()).element_size())
        tokens = sum(min(self.clip.context, 2 + 2 * len(text.split())) for text in texts)  # a word is some 1.3
        whole = len(rows) * (each["states"] + each["pixels"]) + tokens * each["token"]
        space.need(f"CLIP features of {len(rows)} pictures and {len(texts)} captions", {self.folder: whole})
        (self.folder / "product.json").unlink(missing_ok=True)
        files.write_checked(self.folder / "encoder.json", self.encoder)
        sha256 = shards.index["image_sha256"]
        with Signals() as signals:
            for part, pixels in tqdm(_prepared(self.clip, shards, _parts(rows), workers), "pictures", mininterval=5):
                states = self._encoded(self.clip.image, pixels)  # [n, P, E]
                arrays = {"pixels": coded(pixels, self.levels), "states": states}
                self.pictures.add([sha256[row].as_py() for row in part], list(range(1, len(part) + 1)), arrays)
                stop(signals.name, f"{len(self.pictures.places)} pictures", self.folder)
            for part in tqdm(_parts(texts), "captions", mininterval=5):
                self.captions.add([_key(text) for text in part], *self._read(part))
                stop(signals.name, f"{len(self.captions.places)} captions", self.folder)
        held = [file for file in self.folder.rglob("*.npy")]
        counts = {"pictures": len(self.pictures.places), "captions": len(self.captions.places)}
        counts["bytes"] = sum(file.stat().st_size for file in held)
        files.write_checked(self.folder / "product.json", counts)
        print(f"{self.folder}: features of {counts['pictures']} pictures and {counts['captions']} captions", flush=True)

    def counts(self) -> dict[str, int]:
        """What is there, where all is: pictures, captions, bytes."""
        with contextlib.suppress(ValueError, FileNotFoundError):
            return files.read_checked(self.folder / "product.json")
        return {}

    def _read(self, texts: list[str]) -> tuple[list[int], dict[str, Tensor]]:
        """The tokens and states of texts, one text after the other; in the whole context, as without the cache."""
        tokens = self.clip.tokenize(texts)  # [n, context]
        mask = self.clip.text_mask(tokens)  # [n, L]
        states = self._encoded(self.clip.states, tokens)[:, : mask.shape[1]][mask]  # [tokens of all, E]
        tokens = tokens[:, : mask.shape[1]][mask].to(torch.int32)
        return mask.sum(1).cumsum(0).tolist(), {"tokens": tokens, "states": states}

    def _encoded(self, encode, given: Tensor) -> Tensor:
        """A row's bits do not depend on those beside it, from some rows up: fewer are filled up with the first."""
        filled = torch.cat([given, given[:1].expand(max(0, LEAST - len(given)), *given.shape[1:])])
        return encode(filled.to(self.device))[: len(given)].cpu()

    def prepared(self, sha256: list[str]) -> Tensor:
        """Prepared pictures [B, 3, S, S] by the sha256 of their files."""
        table = self.levels.numpy()

        def decoded(rows: np.ndarray) -> np.ndarray:
            if rows.dtype != np.uint8:
                return rows
            return np.stack([table[i][rows[:, i]] for i in range(3)], axis=1)

        return self.pictures.gather(sha256, "pixels", decoded)[:, 0]

    def batch(self, sha256: list[str], texts: list[str]) -> dict[str, Tensor]:
        """What VIKDF.sums takes of pictures and captions."""
        made = {"pixels": self.prepared(sha256), "h_image": self.pictures.gather(sha256, "states")[:, 0]}
        keys = [_key(text) for text in texts]
        made["clip_tokens"] = self.captions.gather(keys, "tokens").long()  # [B, L]
        return made | {"h_text": self.captions.gather(keys, "states")}  # [B, L, E]


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _parts(values: list) -> list[list]:
    return [values[start : start + PIECE] for start in range(0, len(values), PIECE)]


class _Prepared(torch.utils.data.Dataset):
    """Rows of the shards with their prepared pictures, a piece at a time."""

    def __init__(self, clip, shards, parts: list[list[int]]):
        self.clip, self.shards, self.parts = clip, shards, parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> tuple[list[int], Tensor]:
        part = self.parts[number]
        return part, torch.stack([self.clip.preprocess(self.shards[row]["image"]) for row in part])


def _prepared(clip, shards, parts: list[list[int]], workers: int) -> torch.utils.data.DataLoader:
    """With a generator of its own: the loader's would otherwise move the training's random numbers."""
    made = {"batch_size": None, "num_workers": workers, "generator": torch.Generator(), "worker_init_fn": unheard}
    return torch.utils.data.DataLoader(_Prepared(clip, shards, parts), **made)


def key(encoder: dict[str, str]) -> str:
    """The name of the folder of an encoder's features."""
    return files.digest(encoder)[:16]


def of(state_root: Path, shards, clip, device: torch.device, workers: int = 0) -> Features:
    """The features of these shards by this CLIP, found by the encoder's fingerprint, and made where they are not there."""
    encoder = fingerprint(clip, device)
    folder = Path(state_root) / "features" / key(encoder)
    return Features(folder, clip, device, encoder).complete(shards, workers)


def features(*, shards: Path, clip: Path, state_root: Path, precision: str, workers: int) -> None:
    """Makes the features that pretraining with `cache_features: true` reads, where they are not there yet.

    shards: folder of the shards
    clip: folder of the CLIP
    state_root: where features are kept, below features/
    precision: of the frozen weights, as `pretrain.training.precision` in params.yaml: float32 or bfloat16
    workers: processes that decode pictures
    """
    from vikdf import place
    from vikdf.model.encoders import CLIP
    from vikdf.samples import Shards

    device = place.process().device
    encoder = CLIP.load(clip, place.FROZEN[precision]).to(device)
    made = of(state_root, Shards(shards), encoder, device, workers)
    print(f"{made.folder}: {made.counts()['bytes'] / 1e6:.1f} MB")


if __name__ == "__main__":
    flags.main(features)
