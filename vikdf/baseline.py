"""A tuned baseline out of its folder, to talk with: what `vikdf reply` asks where the folder is not one of VIKDF.

In: results/finetune/<system>-<fraction>-s<seed>/ whose config.json is that of a baseline, and the backbones. Out: an object that
replies; it has no knowledge vectors to put into words or to draw. Used by vikdf.use.
What it learned from image-text pairs and the pictures that it looks at are found beside it, as a run leaves them: the folder
<system>-s<seed> in `pretrain` beside `finetune`, `shards` beside the backbones.
"""

from pathlib import Path

from vikdf import files, systems

ANSWERS = Path(systems.__file__).parent / "baselines"


def found(folder: Path) -> dict | None:
    """The config of a baseline's folder; None where it is another folder, or none."""
    from vikdf.baselines.parts.product import FORMAT

    path = folder / "config.json"
    config = files.read_json(path) if path.is_file() else None
    return config if isinstance(config, dict) and config.get("format") == FORMAT else None


class Baseline:
    def __init__(self, folder: Path, config: dict, backbones: Path | None):
        from vikdf.model import checkpoint

        settings = (config.get("run") or {}).get("settings") or {}
        entry = settings.get("entry") or {}
        if not (ANSWERS / f"{entry.get('kind')}.py").is_file() or not str(entry["kind"]).isidentifier():
            raise ValueError(
                f"{folder} was not written by the stage finetune: its config.json does not say with which entry of `baselines` "
                "it was tuned; name a folder below results/finetune"
            )
        self.name, self.decoding = str(folder), dict(checkpoint.DECODING)
        places = systems.Places(_backbones(folder, backbones), *_seen(folder, settings, backbones))
        self.system = systems.named(entry).answerer(entry, folder, places).eval()

    def to(self, device) -> "Baseline":
        self.system = self.system.to(device)
        return self

    def reply(self, turns: list[str]) -> str:
        if not turns or not turns[-1].strip():
            raise ValueError(f"the dialogue is {turns!r}: expected turns whose last one says something")
        return self.system.generate([list(turns)], **self.decoding)[0]

    def fits(self, turns: list[str], answer: int) -> bool:
        """Whether a language model reads all of it; every other baseline cuts what is too long, and keeps what was said last."""
        llm = getattr(self.system, "llm", None)
        positions = getattr(llm.model.config.get_text_config(), "max_position_embeddings", None) if llm else None
        return positions is None or self.system.lengths([list(turns)])[0] + answer <= positions

    def textualize(self, turns: list[str]) -> str:
        raise ValueError(f"{self.name} has no knowledge to put into words: it is a baseline, ask a VIKDF system")

    def draw(self, turns: list[str]):
        raise ValueError(f"{self.name} cannot draw: it is a baseline, ask a VIKDF system")


def _backbones(folder: Path, given: Path | None) -> Path:
    """As for VIKDF: the nearest data/backbones above the folder, then below the working directory."""
    if given is not None:
        return given
    places = [root / "data" / "backbones" for root in [*folder.resolve().parents, Path.cwd()]]
    return next((place for place in places if place.is_dir()), places[-1])


def _seen(folder: Path, settings: dict, backbones: Path | None) -> tuple[Path | None, Path | None]:
    """What it learned from pairs, and the shards, where they are."""
    learned = folder.resolve().parent.parent / "pretrain" / f"{settings.get('system')}-s{settings.get('seed')}"
    shards = _backbones(folder, backbones).parent / "shards"
    return learned if learned.is_dir() else None, shards if shards.is_dir() else None
