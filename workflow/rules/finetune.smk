# In: data/dialogues; a pretrained folder, or the system tuned on Reddit. Out: results/finetune/<system>-<fraction>-s<seed>/.
# `results/tuning.csv` is a target of its own: every tuned system of table 1 with each of finetune.learning_rates, by validation NLL.
START = {(name, "zero"): f"results/pretrain/{entry['pretrain']}-s{{seed}}" for name, entry in KNOWING.items()}
START |= {(name, "zero"): f"results/pretrain/{name}-s{{seed}}" for name in LEARNING}
START |= {(name, "zero"): [] for name in set(BASELINES) - set(LEARNING)}
TASK = {"zero": "reddit", "full": "image_chat", "quarter": "image_chat", "eighth": "image_chat"}


rule finetune:
    """Tunes a system on Reddit (zero), or the result further on a fraction of Image-Chat; text only (paper, 3.4.2)."""
    input:
        code=lambda wildcards: code("finetune") + code(CODE[wildcards.system]),
        start=lambda wildcards: expand(
            START.get((wildcards.system, wildcards.fraction), "results/finetune/{system}-zero-s{seed}"),
            system=wildcards.system,
            seed=wildcards.seed,
        ),
        dialogues=lambda wildcards: f"data/dialogues/{TASK[wildcards.fraction]}.parquet",
        backbones=lambda wildcards: expand("data/backbones/{name}", name=FROZEN[wildcards.system]),
        seen=lambda wildcards: seen(wildcards.system, wildcards.seed),
        pictures=lambda wildcards: "data/dialogues/pictures.parquet" if wildcards.system in GROUNDED else [],
    output:
        directory("results/finetune/{system}-{fraction}-s{seed}"),
    log:
        "logs/finetune/{system}-{fraction}-s{seed}.log",
    wildcard_constraints:
        system="|".join(SYSTEMS),
        fraction="|".join(TASK),
        seed=r"\d+",
    priority: 1
    threads: config["finetune"]["training"]["processes"]
    resources:
        gpu=config["finetune"]["training"]["processes"],
    params:
        launch=launch("finetune"),
        fraction="{fraction}",
        flags=lambda wildcards: tuning(wildcards.system),
        seen=lambda wildcards: seen_flags(wildcards.system, wildcards.seed),
    shell:
        "{params.launch} -m vikdf.finetune --system {wildcards.system:q} --fraction {params.fraction:q} --seed {wildcards.seed:q}"
        " --start {input.start:q} --dialogues data/dialogues --backbones data/backbones {params.seen} {params.flags}"
        " --output {output:q} --state-root state 2>&1 | keep {log:q}"


use rule finetune as tried with:
    input:
        code=lambda wildcards: code("finetune") + code(CODE[wildcards.system]),
        start=lambda wildcards: expand(START[wildcards.system, "zero"], seed=wildcards.seed),
        dialogues="data/dialogues/reddit.parquet",
        backbones=lambda wildcards: expand("data/backbones/{name}", name=FROZEN[wildcards.system]),
        seen=lambda wildcards: seen(wildcards.system, wildcards.seed),
        pictures=lambda wildcards: "data/dialogues/pictures.parquet" if wildcards.system in GROUNDED else [],
    output:
        directory("results/finetune/tried/{system}-lr{rate}-s{seed}"),
    log:
        "logs/finetune/{system}-lr{rate}-s{seed}.log",
    wildcard_constraints:
        system="|".join(SYSTEMS),
        rate="|".join(map(re.escape, map(str, config["finetune"]["learning_rates"]))),
        seed=r"\d+",
    params:
        launch=launch("finetune"),
        fraction="zero",
        flags=lambda wildcards: tuning(wildcards.system, learning_rate=float(wildcards.rate)),
        seen=lambda wildcards: seen_flags(wildcards.system, wildcards.seed),


rule tuning:
    """The budget of tuning: each learning rate of each system on Reddit, by validation NLL; no test item is read."""
    input:
        code=code("tuning"),
        tried=expand(
            "results/finetune/tried/{system}-lr{rate}-s{seed}",
            system=TUNED,
            rate=config["finetune"]["learning_rates"],
            seed=config["seeds"][0],
        ),
    output:
        "results/tuning.csv",
    log:
        "logs/finetune/tuning.log",
    params:
        flags=_params.as_flags({"rates": {system: rate_of(system) for system in TUNED}}),
    shell:
        "python -m vikdf.tuning --tried {input.tried:q} {params.flags} --output {output:q} 2>&1 | keep {log:q}"
