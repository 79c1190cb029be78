"""What a params file asks for, counted before anything runs: parameters, FLOPs, memory, storage and hours.

In: a params file, and each backbone's architecture (vikdf.backbones.shapes). Out: a page of tables. Nothing is fetched, and no
weight is held: the model is built on the meta device from the same classes that train.
Run: vikdf plan presets/paper.yaml --gpu h100 (all flags: vikdf plan --help)
"""

from dataclasses import dataclass
from pathlib import Path

from vikdf import params as params_file
from vikdf import pays
from vikdf.columns import GIB, many, memory_of, short, table, time_of
from vikdf.gpus import gpus
from vikdf.model import cost, others
from vikdf.model.cost import Lengths, Work
from vikdf.model.outline import Outlines, parts, saved, size, trained
from vikdf.model.respond import Responder
from vikdf.model.vikdf import LOSSES, VIKDFForPretraining
from vikdf.room import KEPT, PICTURE_BYTES, Room, clips, memory, number_size, pictures, storage

SPARE = 0.1  # of a GPU's memory for its driver, the kernels' workspaces and gaps between tensors
MAKING = "making the cached CLIP features"
VALID = {"reddit": 20_000, "image_chat": 5_000}  # dialogues of the validation splits: data/README.md
LEAST = {"micro_batch": 0, "processes": 0, "rows": 0}  # 0: the file's; every other number of the flags is 1 at least


@dataclass(frozen=True)
class Options:
    gpu: str = ""
    utilisation: float = 0.4  # share of the peak; well-tuned training of large models reaches 0.3 to 0.5
    micro_batch: int = 0  # 0: the params file's
    processes: int = 0
    rows: int = 0  # pictures; 0: what the corpora are expected to hold
    picture_bytes: int = PICTURE_BYTES
    disk: float = (
        1.0  # gigabytes a second, of the disk with the cached features: a usual solid-state disk, rows in any order
    )
    backbones: Path = Path()
    lengths: Lengths = Lengths()


def check(options: Options) -> None:
    """Raises a ValueError for the first flag that no run could have."""
    if not 0 < options.utilisation <= 1:
        raise ValueError(f"--utilisation is {options.utilisation}: expected a share of the peak, above 0 and at most 1")
    if not options.disk > 0:
        raise ValueError(f"--disk is {options.disk}: expected gigabytes a second, above 0")
    gpus(options.gpu)
    lengths = options.lengths
    for name, value in (vars(options) | vars(lengths)).items():
        least = lengths.opening if name == "template" else LEAST.get(name, 1)
        if isinstance(value, int) and value < least:
            raise ValueError(f"--{name.replace('_', '-')} is {value}: expected at least {least}")


def launched(values: dict, options: Options) -> dict:
    """The params with the flags' processes and micro-batch; the rows of a step stay what they are."""
    made = {name: _launched(values[name]["training"], options) for name in ("pretrain", "finetune")}
    return values | {name: values[name] | {"training": training} for name, training in made.items()}


def _launched(training: dict, options: Options) -> dict:
    rows = training["processes"] * training["micro_batch"] * training["accumulate"]
    processes = options.processes or training["processes"]
    micro = options.micro_batch or min(training["micro_batch"], max(1, rows // processes))
    if rows % (processes * micro):
        raise ValueError(
            f"{processes} processes x {micro} rows at once do not divide a step of {rows} rows: choose --processes and "
            "--micro-batch whose product does"
        )
    took = {"processes": processes, "micro_batch": micro, "accumulate": rows // (processes * micro), "rows": rows}
    return training | took


def parameters(model: VIKDFForPretraining) -> list[str]:
    clip, found = model.source.clip, parts(model)
    rows = [[name, short(count), short(count * kept), "-"] for name, count, kept in found]
    frozen = {"CLIP text": clip.counted["text"], "CLIP vision": clip.counted["vision"], "LLM": size(model.llm)}
    rows += [[name, "-", "-", short(count)] for name, count in frozen.items()]
    kept = sum(count for _, count, kept in found if kept)
    rows.append(["sum", short(trained(model)), short(kept), short(sum(frozen.values()))])
    return table(["Parameters: trained in", "pretraining", "fine-tuning", "never"], rows)


def systems_of(values: dict) -> dict[str, dict]:
    return values["finetune"]["systems"] | values["baselines"]


def alone(entry: dict) -> bool:
    """Whether a system is VIKDF or the LLM with LoRA: of these all is counted, of other baselines the parameters."""
    lora = {"llm_lora": True, "llm_full": bool(entry.get("lora"))}
    return "kind" not in entry or lora.get(entry["kind"], False)


def baselines(values: dict, options: Options) -> list[str]:
    """What the baselines train that are neither; those without a line train nothing, or are not counted."""
    found = others.counted(values, options.backbones)
    rows = [[name, *(short(part) if part else "-" for part in vars(count).values())] for name, count in found.items()]
    missing = [
        name for name, entry in values["baselines"].items() if entry["tuned"] and not alone(entry) and name not in found
    ]
    lines = table(["Other baselines: trained in", "own pretraining", "fine-tuning", "either"], rows)
    return lines + ([f"Not counted: {', '.join(missing)}."] if missing else [])


def systems(values: dict, tuned: dict[str, Responder]) -> list[str]:
    """What each system tunes in this stage alone."""
    rows = []
    for name, entry in ((name, entry) for name, entry in systems_of(values).items() if alone(entry)):
        said = [entry.get("iqformer") == "tuned", entry.get("lora", entry.get("tuned", False))]
        count = short(trained(tuned[name])) if name in tuned else "-"
        rows.append([name, count, *["yes" if part else "no" for part in said]])
    return table(["Tuned in fine-tuning", "parameters", "IQ-Former", "LoRA"], rows)


def wanted(values: dict) -> tuple[str, ...]:
    return tuple(name for name in LOSSES if values["pretrain"]["weights"][name])


def sample(values: dict, model: VIKDFForPretraining, options: Options, cached: bool | None = None) -> dict[str, Work]:
    """`cached`: with features made before, or without; None as the params say."""
    training = values["pretrain"]["training"]
    together = training["processes"] * training["micro_batch"]
    cached = values["pretrain"]["cache_features"] if cached is None else cached
    return cost.pretraining(model, options.lengths, together, wanted(values), cached, training["processes"])


def cached(values: dict, model: VIKDFForPretraining, options: Options) -> list[str]:
    plain, less = (sum(part.total for part in sample(values, model, options, way).values()) for way in (False, True))
    return pays.lines(values, model, options, plain, plain - less)


def flops(title: str, work: dict[str, Work]) -> list[str]:
    whole = sum(part.total for part in work.values())
    rows = [
        [name, short(part.forward), short(part.backward), f"{part.total / whole:.1%}"] for name, part in work.items()
    ]
    sums = [sum(getattr(part, kind) for part in work.values()) for kind in ("forward", "backward")]
    rows.append(["sum", *map(short, sums), f"{short(whole)}FLOP"])
    return table([title, "forward", "backward", "share"], rows)


@dataclass(frozen=True)
class Run:
    name: str
    times: int
    samples: float
    work: float  # FLOPs of one run
    processes: int  # that share it, one a GPU
    product: int  # numbers in what it leaves


def begun(values: dict) -> set[str]:
    """The variants of pretraining that a system begins with."""
    return {entry["pretrain"] for entry in values["finetune"]["systems"].values()}


def runs(values: dict, model: VIKDFForPretraining, tuned: dict[str, Responder], options: Options) -> list[Run]:
    """What table 1 trains: each variant of pretraining that a system begins with, and each tuning, for each seed."""
    training = values["pretrain"]["training"]
    steps = [values["ablations"].get(name, {}).get("training", {}).get("steps") for name in begun(values)]
    samples = training["steps"] * training["rows"]
    once = sum(part.total for part in sample(values, model, options).values()) * samples
    times = sum(step != 0 for step in steps) * len(values["seeds"])
    made = [Run("pretraining", times, samples, once, training["processes"], saved(model))]
    if values["pretrain"]["cache_features"]:
        count = pictures(values, options.rows)
        made.append(
            Run(MAKING, len(clips(values)), count, count * cost.features(model, values["caption"]["keep"]), 1, 0)
        )
    drawer = size(model.tamim)  # which a fine-tuned model keeps
    for name, responder in tuned.items():
        product = saved(responder) + (drawer if responder.source is not None else 0)
        made += tunings(name, systems_of(values)[name], responder, product, values, options)
    return made


def tunings(name: str, entry: dict, responder: Responder, product: int, values: dict, options: Options) -> list[Run]:
    """On Reddit (zero data), then from there on parts of Image-Chat; every validation is a forward pass over all its rows."""
    section, work = values["finetune"], cost.tuning(responder, options.lengths).values()
    all_steps = section["steps"] | entry.get("steps", {})
    whole, forward = sum(part.total for part in work), sum(part.forward for part in work)
    training, made = section["training"], []
    for task, count in (("reddit", 1), ("image_chat", len(set(entry["fractions"]) - {"zero"}))):
        steps = all_steps[task]
        samples, checks = steps * training["rows"], -(-steps // training["validate_every"])
        spent = samples * whole + checks * valid(values, task) * forward
        if count:
            times = count * len(values["seeds"])
            made.append(Run(f"{name}, {task}", times, samples, spent, training["processes"], product))
    return made


def valid(values: dict, task: str) -> int:
    world = values["sources"]["world"]
    return world[task]["valid"] if world else VALID[task]


def spent(found: list[Run]) -> list[str]:
    rows = [[run.name, str(run.times), f"{run.samples:,.0f}", f"{run.work:.3g}"] for run in found]
    rows.append(["all", "", "", f"{sum(run.work * run.times for run in found):.3g}"])
    return table(["Trainings of table 1", "runs", "samples each", "FLOP each"], rows)


def rooms(values: dict, model: VIKDFForPretraining, tuned: dict[str, Responder], lengths: Lengths) -> dict[str, Room]:
    """The memory of both stages; of fine-tuning, that of the system that takes most."""
    training = values["pretrain"]["training"]
    kept = cost.pretraining_memory(model, lengths, wanted(values), number_size(training))
    made, training = Room("", training, memory(model, training, kept)), values["finetune"]["training"]
    kept = {name: cost.tuning_memory(part, lengths, number_size(training)) for name, part in tuned.items()}
    found = [Room(name, training, memory(part, training, kept[name])) for name, part in tuned.items()]
    return {"pretrain": made, "finetune": max(found, key=lambda room: room.whole)}


def kept(values: dict, outlines: Outlines, model: VIKDFForPretraining, found: list[Run], options: Options) -> list[str]:
    """Storage; a product stands in results/ and in state/."""
    products = {run.name: (run.times, run.product) for run in found if run.product}
    products["pretraining"] = (len(begun(values)) * len(values["seeds"]), saved(model))  # also of those without a step
    count = pictures(values, options.rows)
    rows = storage(values, outlines, model, products, count, options.picture_bytes, options.lengths)
    lines = [
        [row.what, f"{row.times:,}", row.each_is, f"{short(row.each)}B", f"{short(row.times * row.each)}B"]
        for row in rows
    ]
    whole = sum(row.times * row.each for row in rows)
    return table(["Storage, at most", "times", "", "each", "all"], [*lines, ["sum", "", "", "", f"{short(whole)}B"]])


def hours(values: dict, found: list[Run], stages: dict[str, Room], options: Options) -> list[str]:
    """A line a GPU: does each stage fit, how many rows would at most, and how long at this utilisation."""
    training, rows = values["pretrain"]["training"], []
    graph = sum(count for name, count in stages["pretrain"].taken.items() if name.startswith(KEPT))
    fixed, each = stages["pretrain"].whole - graph, graph / training["micro_batch"]
    once, whole = found[0].work / found[0].processes, sum(run.work * run.times / run.processes for run in found)
    for gpu in gpus(options.gpu):
        space = gpu.memory * GIB * (1 - SPARE)
        pace = gpu.tflops * 1e12 * options.utilisation  # FLOP a second of one GPU
        fits = ["yes" if part.whole <= space else "no" for part in stages.values()]
        most = f"{max(0, int((space - fixed) // each)):,}"
        rows.append([f"{training['processes']} x {gpu.name}", f"{gpu.memory} GiB", f"{gpu.tflops:g} T", *fits, most])
        rows[-1] += [time_of(once / pace), time_of(whole / pace)]
    titles = [
        "memory",
        "bf16 FLOP/s",
        "pretrain fits",
        "finetune fits",
        "pretrain rows that fit",
        "one pretraining",
        "table 1",
    ]
    lines = table([f"At {options.utilisation:.0%} of the bf16 peak", *titles], rows)
    if training["precision"] == "float32":
        lines.append(
            "These trainings run in float32, whose peak is lower: half of that in bf16 with TF32, else far less."
        )
    return lines


def plan(path: Path, options: Options) -> str:
    """The page for one params file."""
    check(options)
    values = launched(params_file.load(path), options)
    params_file.check_spread(values, path)  # again: the flags may leave one process
    outlines, lengths = Outlines(values, options.backbones), options.lengths
    model = outlines.pretraining()
    tuned = {name: outlines.system(entry) for name, entry in systems_of(values).items() if alone(entry)}
    stages, found = rooms(values, model, tuned, lengths), runs(values, model, tuned, options)
    sections = [
        head(path, values, model, options),
        parameters(model),
        flops("FLOPs of a pretraining sample", sample(values, model, options)),
        flops("FLOPs of a fine-tuning dialogue (vikdf)", cost.tuning(tuned["vikdf"], lengths)),
        systems(values, tuned),
        baselines(values, options),
        spent(found),
        *[taken(name, part) for name, part in stages.items()],
        kept(values, outlines, model, found, options),
        cached(values, model, options),
        hours(values, found, stages, options),
        NOTES,
    ]
    return "\n\n".join("\n".join(lines) for lines in sections)


NOTES = [
    "FLOPs: matrix products, attention over whole rows; every forward and backward as the step really does them. Not counted:",
    "sampled captions, the answers to the test sets and the metrics; of other baselines everything but their parameters, and",
    "what table 4 needs beside table 1. Pictures: before the web's losses and the filter.",
]


def taken(name: str, room: Room) -> list[str]:
    rows = [[what, memory_of(count)] for what, count in room.taken.items()] + [["sum", memory_of(room.whole)]]
    stage = f"{name} ({room.system}, which takes most)" if room.system else name
    said = f"{many(room.training['micro_batch'], 'row')} at once, {room.training['precision']}"
    return table([f"Memory of a GPU, {stage}: {said}", ""], rows)


def head(path: Path, values: dict, model: VIKDFForPretraining, options: Options) -> list[str]:
    clip, llm, shape, lengths = model.source.clip, model.llm, model.source.iqformer.shape, options.lengths
    training = values["pretrain"]["training"]
    return [
        f"{path}",
        f"  CLIP {clip.pixels}/{clip.patch}, {clip.vision.layers} + {clip.text.layers} layers, joint width {clip.width}; "
        f"IQ-Former {shape['layers']} x {shape['width']}, {shape['queries']} queries; "
        f"LLM {llm.family} {llm.stack.layers} x {llm.stack.width}",
        f"  a step: {many(training['processes'], 'process')} x {many(training['micro_batch'], 'row')} "
        f"x {many(training['accumulate'], 'time')} = {many(training['rows'], 'row')}, {many(training['steps'], 'step')}",
        f"  assumed tokens: captions {lengths.caption_mean:g}, the longest of a batch {lengths.caption}; prompt {lengths.prompt}; "
        f"chat template {lengths.template}; a dialogue's context {lengths.context}, response {lengths.response}",
    ]
