# In: data/shards; CLIP, the BERT that the IQ-Former starts from, LLM. Out: results/pretrain/<variant>-s<seed>/.
VARIANTS = {"vikdf": {}} | config["ablations"]  # a variant puts its keys in place of those of `pretrain`
PARTS = {
    name: [{**config["pretrain"], **changed}[part] for part in ("clip", "bert", "llm")]
    for name, changed in VARIANTS.items()
}
QUERIES = {
    name: {**config["pretrain"]["model"], **changed.get("model", {})}["queries"] for name, changed in VARIANTS.items()
}


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
        "{params.launch} -m vikdf.pretrain --shards data/shards --backbones data/backbones --variant {wildcards.variant}"
        " --seed {wildcards.seed} {params.flags} --output {output} --state-root state 2>&1 | tee {log}"
