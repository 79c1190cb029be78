"""Whether the cached CLIP features (vikdf.features) pay, and after how many steps, for vikdf.plan.

In: bytes and FLOPs of a picture's features, what a step saves, a GPU's pace. Out: seconds, a number of steps, lines.

Counted against the cache: making it takes one GPU and decodes, computes and writes one after the other; what a step reads is
hidden behind nothing. Counted for it: CLIP's passes over whole pictures and captions, which no step computes any more, and the
picture's file, which is not read; the decoding of that file only where no loader workers hide it.
"""

import math
from dataclasses import dataclass

from vikdf import room
from vikdf.columns import many, short, time_of
from vikdf.gpus import gpus
from vikdf.model import cost

DECODED = 264  # pictures a second of one core, JPEG to 224 px by Pillow and numpy: measured
GB = 1e9


@dataclass(frozen=True)
class Cache:
    pictures: int
    written: float  # bytes of a picture with all its captions
    read: float  # bytes a sample: a picture with one caption, less the picture's file
    making: float  # FLOPs of a picture with its captions
    saved: float  # FLOPs of a sample
    rows: int  # samples of a step, of all processes
    processes: int
    workers: int  # loader processes of each process
    disk: float  # bytes a second

    def made_in(self, pace: float) -> float:
        """Seconds on one GPU that computes so many FLOPs a second."""
        decoding = 1 / (DECODED * max(1, self.workers))
        return self.pictures * (self.making / pace + decoding + self.written / self.disk)

    def gained(self, pace: float) -> float:
        """Seconds a step that the GPUs, each with its share of the rows, are done earlier."""
        own = self.rows / self.processes
        return own * self.saved / pace + (0 if self.workers else own / DECODED)

    def reading(self) -> float:
        """Seconds a step: all processes read from one disk. Below 0 where the features are smaller than the pictures' files."""
        return self.rows * self.read / self.disk

    def pays_after(self, pace: float) -> int | None:
        """Steps after which making it has cost less than it saved; None: never."""
        each = self.gained(pace) - self.reading()
        return math.ceil(self.made_in(pace) / each) if each > 0 else None


def cache(values: dict, model, options, saved: float) -> Cache:
    training, keep = values["pretrain"]["training"], values["caption"]["keep"]
    parts = room.entry(values, model, options.lengths)
    read = parts["states"] + parts["pixels"] + parts["captions"] / keep - room.file_bytes(values, options.picture_bytes)
    return Cache(
        pictures=room.pictures(values, options.rows),
        written=sum(parts.values()),
        read=read,
        making=cost.features(model, keep),
        saved=saved,
        rows=training["rows"],
        processes=training["processes"],
        workers=training["workers"],
        disk=options.disk * GB,
    )


def lines(values: dict, model, options, plain: float, saved: float) -> list[str]:
    """`plain`: FLOPs of a sample without the cache, `saved`: those that it saves of them."""
    found, parts = cache(values, model, options, saved), room.entry(values, model, options.lengths)
    share = room.clips(values).get(values["pretrain"]["clip"], 0)  # steps
    asked = str(values["pretrain"]["cache_features"]).lower()  # as in the params file
    shown = ", ".join(f"{name} {short(count)}B" for name, count in parts.items())
    made = [
        f"Cached CLIP features (pretrain.cache_features is {asked})",
        f"  a picture takes {short(found.written)}B on disk ({shown}), {many(found.pictures, 'picture')} "
        f"{short(found.written * found.pictures)}B for each CLIP",
        f"  a step is saved {short(saved * found.rows)}FLOP of {short(plain * found.rows)}FLOP ({saved / plain:.1%})",
        f"  assumed: one GPU makes them, a core decodes {DECODED} pictures a second, the disk reads and writes "
        f"{options.disk:g} GB/s (--disk), hidden behind nothing",
    ]
    for gpu in gpus(options.gpu):
        made.append(
            "  " + verdict(found, f"{found.processes} x {gpu.name}", gpu.tflops * 1e12 * options.utilisation, share)
        )
    return made


def verdict(found: Cache, where: str, pace: float, share: int) -> str:
    steps, gained, reading = found.pays_after(pace), found.gained(pace) * 1000, found.reading() * 1000
    told = f"a step gains {gained:.1f} ms and reads {reading:+.1f} ms longer"
    if steps is None:
        return f"on {where} the feature cache never pays: {told}"
    enough = "" if steps <= share else ", too few"
    return (
        f"on {where} the feature cache pays after {many(steps, 'step')}: made in {time_of(found.made_in(pace))}, {told}; "
        f"table 1 has {share:,} steps that share it{enough}"
    )
