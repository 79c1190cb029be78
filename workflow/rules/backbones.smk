# In: what an entry of backbones.models names (pictures and texts to train on, or a folder). Out: data/backbones/<name>/.
MODELS = config["backbones"]["models"]


rule backbones:
    """Every model as a local folder in its ecosystem's own form."""
    input:
        code=code("backbones"),
        given=lambda wildcards: [
            MODELS[wildcards.name][key]
            for key in ("pairs", "boxes", "texts", "lexicon")
            if key in MODELS[wildcards.name]
        ],
    output:
        directory("data/backbones/{name}"),
    log:
        "logs/backbones/{name}.log",
    wildcard_constraints:
        name="|".join(MODELS),
    priority: 3
    resources:
        gpu=1,
    params:
        flags=lambda wildcards: flags("backbones", "seed", entry=MODELS[wildcards.name]),
    shell:
        "python -m vikdf.backbones --name {wildcards.name:q} {params.flags}"
        " --output {output:q} --state-root state 2>&1 | keep {log:q}"
