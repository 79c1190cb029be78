# In: data/dialogues, a fine-tuned system (none where it is prompted). Out: results/generate/<system>-<fraction>-s<seed>.parquet.
ASKED = {"zero": list(config["dialogues"]["corpora"])}  # every other fraction answers Image-Chat alone


rule generate:
    """Answers of one system to all test dialogues of its rows in the table, with the NLL of the references."""
    input:
        code=lambda wildcards: code("generate") + code(CODE[wildcards.system]),
        tuned=lambda wildcards: expand(
            [] if wildcards.system in PROMPTED else "results/finetune/{system}-{fraction}-s{seed}",
            system=wildcards.system,
            fraction=wildcards.fraction,
            seed=wildcards.seed,
        ),
        dialogues=lambda wildcards: expand(
            "data/dialogues/{task}.parquet", task=ASKED.get(wildcards.fraction, ["image_chat"])
        ),
        backbones=lambda wildcards: expand("data/backbones/{name}", name=FROZEN[wildcards.system]),
        seen=lambda wildcards: seen(wildcards.system, wildcards.seed),
    output:
        "results/generate/{system}-{fraction}-s{seed}.parquet",
    log:
        "logs/generate/{system}-{fraction}-s{seed}.log",
    wildcard_constraints:
        system="|".join(SYSTEMS),
        fraction="|".join(TASK),
        seed=r"\d+",
    resources:
        gpu=1,
    params:
        flags=lambda wildcards: flags("generate", entry=SYSTEMS[wildcards.system]),
        seen=lambda wildcards: seen_flags(wildcards.system, wildcards.seed),
    shell:
        "python -m vikdf.generate --system {wildcards.system:q} --fraction {wildcards.fraction:q} --seed {wildcards.seed:q}"
        " --tuned {input.tuned:q} --dialogues {input.dialogues:q} --backbones data/backbones"
        " {params.seen} {params.flags}"
        " --output {output:q} --state-root state 2>&1 | keep {log:q}"
