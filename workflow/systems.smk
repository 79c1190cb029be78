"""What the rules know of the systems of table 1: VIKDF and its controls by their variant of pretrain, baselines by their kind.

VARIANTS           variants of pretrain by name: each puts its keys in place of those of `pretrain`; PARTS: their clip, bert and llm
KNOWING            the systems that stand on a variant; BASELINES: the others; SYSTEMS: both. What only tables 3 and 4 and figure 7
                   ask for is among them
LEARNING           baselines that learn from image-text pairs first; GROUNDED: those that also learn from pictures of dialogues
PROMPTED           baselines that are not tuned
CODE, FROZEN       of each system its module, and the backbones that it stands on
seen(...)          what a baseline learned from pairs, and the shards, as inputs; seen_flags(...): as flags
tuning(system)     the flags of its tuning: an entry's own `training` and `steps` stand in place of finetune's
TUNED, rate_of     the systems whose learning rates `tuning.csv` compares; the rate that params.yaml gives a system
"""

from vikdf.systems import BACKBONES, grounded

VARIANTS = {"vikdf": {}} | config["ablations"] | ON_VARIANTS
PARTS = {
    name: [{**config["pretrain"], **changed}[part] for part in ("clip", "bert", "llm")]
    for name, changed in VARIANTS.items()
}
QUERIES = {
    name: {**config["pretrain"]["model"], **changed.get("model", {})}["queries"] for name, changed in VARIANTS.items()
}

KNOWING = config["finetune"]["systems"] | ABLATED | ON_KNOWING
BASELINES = config["baselines"] | ON_ALONE
SYSTEMS = KNOWING | BASELINES
LEARNING = [name for name, entry in BASELINES.items() if "pretrain" in entry]
GROUNDED = [name for name, entry in BASELINES.items() if grounded(entry)]
PROMPTED = [name for name, entry in BASELINES.items() if not entry["tuned"]]
CODE = dict.fromkeys(KNOWING, "systems")
CODE |= {name: f"baselines.{entry['kind']}" for name, entry in BASELINES.items()}
FROZEN = {name: PARTS[entry["pretrain"]][::2] for name, entry in KNOWING.items()}  # clip and llm
FROZEN |= {name: [entry[key] for key in BACKBONES if entry.get(key)] for name, entry in BASELINES.items()}


def seen(system, seed):
    if system not in LEARNING:
        return []
    return [f"results/pretrain/{system}-s{seed}", "data/shards/index.parquet", "data/shards/manifest.json"]


def seen_flags(system, seed):
    learned = f"results/pretrain/{system}-s{seed} --shards data/shards" if system in LEARNING else "--shards"
    return f"--pretrained {learned}"


def tuning(system, **changed):
    own = {name: SYSTEMS[system].get(name, {}) for name in ("steps", "training")}
    own["training"] = own["training"] | changed
    return flags("finetune", "lora", "steps", "training", entry=SYSTEMS[system], **own)


# What `tuning.csv` tries: VIKDF and every tuned baseline. Controls of `finetune.systems` are tuned as VIKDF is.
TUNED = ["vikdf", *[name for name, entry in config["baselines"].items() if entry["tuned"]]]


def rate_of(system):
    return SYSTEMS[system].get("training", {}).get("learning_rate", config["finetune"]["training"]["learning_rate"])
