# In: data/shards; CLIP, the BERT that the IQ-Former starts from, LLM. Out: results/pretrain/<variant>-s<seed>/.
# Baselines that learn from the same pairs (their entry has `pretrain`) leave results/pretrain/<system>-s<seed>/.


rule pretrain:
    """Distils visual knowledge: the five losses in one run (paper, sections 3.2 and 3.3)."""
    input:
        code=code("pretrain"),
        shards=["data/shards/index.parquet", "data/shards/manifest.json"],
        backbones=lambda wildcards: expand("data/backbones/{name}", name=PARTS[wildcards.variant]),
    output:
        directory("results/pretrain/{variant}-s{seed}"),
    log:
        "logs/pretrain/{variant}-s{seed}.log",
    wildcard_constraints:
        variant="|".join(VARIANTS),
        seed=r"\d+",
    priority: 2
    threads: config["pretrain"]["training"]["processes"]
    resources:
        gpu=config["pretrain"]["training"]["processes"],
    params:
        launch=launch("pretrain"),
        flags=lambda wildcards: flags("pretrain", **VARIANTS[wildcards.variant]),
    shell:
        "{params.launch} -m vikdf.pretrain --shards data/shards --backbones data/backbones --variant {wildcards.variant:q}"
        " --seed {wildcards.seed:q} {params.flags} --output {output:q} --state-root state 2>&1 | keep {log:q}"


rule pretrain_baseline:
    """What a baseline learns from the same image-text pairs before it meets a dialogue."""
    input:
        code=lambda wildcards: code("pretrain_baseline") + code(CODE[wildcards.system]),
        shards=["data/shards/index.parquet", "data/shards/manifest.json"],
        backbones=lambda wildcards: expand("data/backbones/{name}", name=FROZEN[wildcards.system]),
    output:
        directory("results/pretrain/{system}-s{seed}"),
    log:
        "logs/pretrain/{system}-s{seed}.log",
    wildcard_constraints:
        system="|".join(LEARNING) or "(?!)",
        seed=r"\d+",
    priority: 2
    threads: config["pretrain"]["training"]["processes"]
    resources:
        gpu=config["pretrain"]["training"]["processes"],
    params:
        launch=launch("pretrain"),
        flags=lambda wildcards: flags(
            "pretrain",
            "held_back",
            "training",
            entry=config["baselines"][wildcards.system],
            training=config["baselines"][wildcards.system]["pretrain"],
        ),
    shell:
        "{params.launch} -m vikdf.pretrain_baseline --system {wildcards.system:q} --seed {wildcards.seed:q} --shards data/shards"
        " --backbones data/backbones {params.flags} --output {output:q} --state-root state 2>&1 | keep {log:q}"
