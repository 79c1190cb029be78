# In: data/dialogues; a pretrained folder, or the system tuned on Reddit. Out: results/finetune/<system>-<fraction>-s<seed>/.
KNOWING = config["finetune"]["systems"] | ABLATED  # what stands on a pretrained folder
SYSTEMS = KNOWING | config["baselines"]
CODE = dict.fromkeys(KNOWING, "systems") | {name: f"baselines.{name}" for name in config["baselines"]}
VARIANT = {name: entry["pretrain"] for name, entry in KNOWING.items()}
FROZEN = {name: PARTS[variant][::2] for name, variant in VARIANT.items()}  # clip and llm
FROZEN |= {name: [entry["llm"]] for name, entry in config["baselines"].items()}
START = {(name, "zero"): f"results/pretrain/{variant}-s{{seed}}" for name, variant in VARIANT.items()}
START |= dict.fromkeys([(name, "zero") for name in config["baselines"]], [])
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
        flags=lambda wildcards: flags("finetune", "lora", "steps", "training", entry=SYSTEMS[wildcards.system]),
    shell:
        "{params.launch} -m vikdf.finetune --system {wildcards.system} --fraction {wildcards.fraction} --seed {wildcards.seed}"
        " --start {input.start} --dialogues data/dialogues --backbones data/backbones {params.flags}"
        " --output {output} --state-root state 2>&1 | tee {log}"
