"""Nearest pictures by inner product, of FAISS: what Maria and ZRIGF retrieve their pictures with.

In: names and vectors of pictures [N, D]. Out: a folder with vectors.safetensors, names.json and index.json, and from it,
for queries [Q, D], the places and scores of the nearest pictures, best first.

    rows, names = distinct(shards)                                      # each picture once, however many rows show it
    index = Index.build(names, vectors, kind="flat")
    index.save(folder)
    places, scores = Index.load(folder).search(queries, top=3)          # [Q, 3] both; index.names[places[0, 0]]

Kinds: `flat` compares with every vector and is exact; `ivf` looks only into the `probes` nearest of `lists` cells, which
pays from some hundred thousand pictures on. FAISS' own files are not used: its reader trusts what a file says of sizes,
so the vectors are kept as safetensors and added anew at each load, to the same index.
"""

from pathlib import Path

import numpy as np

from vikdf import files

VECTORS, NAMES, CONFIG = "vectors.safetensors", "names.json", "index.json"
KINDS = ("flat", "ivf")
SPARE = 8  # more than are asked for: the last ones may change places when they are compared in double precision
CURE = "delete the folder and run the step that makes it again, or copy it anew"


def distinct(shards) -> tuple[list[int], list[str]]:
    """Rows of vikdf.samples.Shards and their pictures' sha256, each picture once: a list may name it many times."""
    first = {}
    for row, name in enumerate(shards.index["image_sha256"].to_pylist()):
        first.setdefault(name, row)
    return [*first.values()], [*first]


def chosen(shards, settings: dict) -> tuple[list[int], list[str], dict]:
    """Rows and names of the pictures that an entry's `index` wants, and the settings of `Index.build`."""
    rows, names = distinct(shards)
    settings = dict(settings)
    most = settings.pop("most_pictures", len(rows))
    return rows[:most], names[:most], settings


def rows_of(shards, names: list[str]) -> list[int]:
    """Where the pictures of an index stand in the shards that it was made of."""
    rows, known = distinct(shards)
    place = dict(zip(known, rows, strict=True))
    if lost := [name for name in names if name not in place]:
        raise ValueError(
            f"{shards.folder} lacks {len(lost)} pictures of the index, as sha256 {lost[0]}: the index was made of other "
            "shards; make it again from these"
        )
    return [place[name] for name in names]


class Index:
    def __init__(self, names: list[str], vectors: np.ndarray, settings: dict, centres: np.ndarray | None = None):
        """settings: {kind} or {kind: ivf, probes}; centres [lists, D]: of ivf's cells."""
        self.names, self.vectors, self.settings, self.centres = names, vectors, settings, centres
        self.engine = self._engine()

    @classmethod
    def build(cls, names: list[str], vectors, kind: str = "flat", *, lists: int = 0, probes: int = 0, seed: int = 1):
        """vectors [N, D] of numpy or torch, of any length: make them unit vectors where cosine is meant."""
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        _check(names, vectors)
        if kind not in KINDS:
            raise ValueError(f"the index has kind {kind!r}: expected {' or '.join(KINDS)}")
        if kind == "flat":
            return cls(names, vectors, {"kind": kind})
        if not 0 < probes <= lists <= len(names):
            raise ValueError(
                f"an index of kind ivf has {lists} lists and {probes} probes over {len(names)} pictures: "
                "expected 1 <= probes <= lists <= pictures"
            )
        return cls(names, vectors, {"kind": kind, "probes": probes}, _centres(vectors, lists, seed))

    def _engine(self):
        import faiss

        width = self.vectors.shape[1]
        flat = faiss.IndexFlatIP(width)
        if self.centres is None:
            flat.add(self.vectors)
            return flat
        flat.add(self.centres)
        cells = faiss.IndexIVFFlat(flat, width, len(self.centres), faiss.METRIC_INNER_PRODUCT)
        cells.is_trained, cells.nprobe = True, self.settings["probes"]
        self.cells = flat  # FAISS does not keep it alive
        cells.add(self.vectors)
        return cells

    def __len__(self) -> int:
        return len(self.names)

    @property
    def width(self) -> int:
        return self.vectors.shape[1]

    def search(self, queries, top: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Places [Q, top] and inner products [Q, top], best first, among equals the first; the same whatever else is asked
        at once: FAISS' sums depend on how many queries it gets, so the nearest are compared once more, in double precision."""
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.width:
            raise ValueError(f"queries have the shape {queries.shape}: expected [any, {self.width}], as the pictures'")
        if not 0 < top <= len(self):
            raise ValueError(f"{top} pictures are asked for: expected 1 to {len(self)}, as many as the index holds")
        _, places = self.engine.search(queries, min(top + SPARE, len(self)))  # [Q, top + spare]; -1: a cell had no more
        near = self.vectors[places].astype(np.float64)  # [Q, top + spare, D]
        scores = np.where(places < 0, -np.inf, (near * queries[:, None]).sum(axis=-1))
        order = np.lexsort((places, -scores))[:, :top]
        places, scores = (np.take_along_axis(each, order, axis=1) for each in (places, scores))
        if (places < 0).any():
            raise ValueError(f"the cells that were looked into hold fewer than {top} pictures: raise `probes`")
        return places, scores

    def save(self, folder: Path) -> None:
        folder = Path(folder)
        tensors = {"vectors": self.vectors} | ({} if self.centres is None else {"centres": self.centres})
        with files.whole(folder / VECTORS) as aside:
            files.save_tensors(tensors, aside)
        files.write_json(folder / NAMES, self.names)
        files.write_json(folder / CONFIG, self.settings | {"pictures": len(self), "width": self.width})

    @classmethod
    def load(cls, folder: Path) -> "Index":
        """The index as it was saved, once its files fit together."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        folder = Path(folder)
        if lost := [name for name in (CONFIG, NAMES, VECTORS) if not (folder / name).is_file()]:
            raise ValueError(f"{folder} holds no index, {lost[0]} is missing: {CURE}")
        said, names = files.read_json(folder / CONFIG), files.read_json(folder / NAMES)
        try:
            tensors = load_file(folder / VECTORS)
        except SafetensorError as error:
            raise ValueError(f"{folder / VECTORS} is damaged ({error}): {CURE}") from None
        try:
            return cls(names, tensors["vectors"], _settings(said, names, tensors), tensors.get("centres"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder} holds no index whose files fit together ({error}): {CURE}") from None


def _settings(said: dict, names: list[str], tensors: dict[str, np.ndarray]) -> dict:
    """What index.json says of searching, once names and tensors are as it counts them."""
    vectors, centres = tensors["vectors"], tensors.get("centres")
    _check(names, vectors)
    if [said["pictures"], said["width"]] != [*vectors.shape] or said["kind"] not in KINDS:
        raise ValueError(f"{CONFIG} describes another one")
    if (said["kind"] == "ivf") != (centres is not None):
        raise ValueError(f"an index of kind {said['kind']} does not go with these tensors")
    if centres is None:
        return {"kind": "flat"}
    _check([*map(str, range(len(centres)))], centres)
    if centres.shape[1] != vectors.shape[1] or not 0 < said["probes"] <= len(centres):
        raise ValueError("its cells do not fit")
    return {"kind": "ivf", "probes": said["probes"]}


def _check(names: list[str], vectors: np.ndarray) -> None:
    if vectors.ndim != 2 or vectors.dtype != np.float32 or not len(vectors) or len(vectors) != len(names):
        raise ValueError(
            f"vectors of shape {vectors.shape} and {len(names)} names: expected one vector a name, one at least"
        )
    if not all(isinstance(name, str) for name in names) or len({*names}) != len(names):
        raise ValueError("two pictures have the same name, or a name is no text: expected each picture once, by a text")
    if not np.isfinite(vectors).all():
        raise ValueError("a vector holds a value that is no number: expected finite ones")


def _centres(vectors: np.ndarray, lists: int, seed: int) -> np.ndarray:
    """Middles of the cells, by FAISS' k-means on unit vectors [lists, D]; the same for the same vectors and seed."""
    import faiss

    sampled = {"min_points_per_centroid": 1, "max_points_per_centroid": 64}  # more move the middles hardly
    kmeans = faiss.Kmeans(vectors.shape[1], lists, niter=10, seed=seed, spherical=True, **sampled)
    kmeans.train(vectors)
    return np.ascontiguousarray(kmeans.centroids, dtype=np.float32)
