# In: the scores and answers of table 1, and what VIKDF learned. Out, each a target of its own, of the stage `tables`: results/core/
# (table 1 of some rows), figure5 and figure6 (cases), results/all (every table and figure of the paper, with its sha256).
use rule significance as core_significance with:
    input:
        code=code("significance"),
        examples=[f"results/evaluate/examples/{run}.parquet" for seed in config["seeds"] for run in core_runs(seed)],
    output:
        "results/core/significance.csv",
        "results/core/intervals.csv",
        "results/core/pairs.csv",
    log:
        "logs/tables/core_significance.log",
    params:
        folder=subpath(output[0], parent=True),
        flags=flags("tables", "systems", "controls", "statistics"),


# Table 1 of the rows that `tables.core` names alone, made without the others: `snakemake --cores all core`.
use rule tables as core with:
    input:
        code=code("tables"),
        scores=[f"results/evaluate/{run}.parquet" for seed in config["seeds"] for run in core_runs(seed)],
        significance="results/core/significance.csv",
        intervals="results/core/intervals.csv",
    output:
        "results/core/table1.csv",
        "results/core/table1.md",
        "results/core/table1.tex",
        "results/core/probe.csv",
        "results/core/metrics.json",
    log:
        "logs/tables/core.log",
    params:
        folder=subpath(output[0], parent=True),
        state="state/core",
        flags=flags(
            "tables",
            "systems",
            "controls",
            "statistics",
            decoding=config["generate"]["decoding"],
            left_out={name: why for name, why in LEFT_OUT.items() if name in config["tables"]["core"]},
        ),


rule figure5:
    """One test dialogue, chosen by its place, and what every system answers to it."""
    input:
        code=code("case"),
        answers=[f"results/evaluate/examples/{run}.parquet" for run in runs(config["seeds"][0])],
    output:
        "results/figure5.csv",
        report("results/figure5.svg", caption="report/figure5.rst", category="Cases"),
    log:
        "logs/tables/figure5.log",
    params:
        flags=flags("tables", "systems", "controls", "figure5"),
    shell:
        "python -m vikdf.case --answers {input.answers:q} --output results --state-root state {params.flags} 2>&1 | keep {log:q}"


rule figure6:
    """What VIKDF knows of some test dialogues: K in words, drawn, and the training pictures nearest to it."""
    input:
        code=code("textualized"),
        pretrained=f"results/pretrain/{config['finetune']['systems']['vikdf']['pretrain']}-s{config['seeds'][0]}",
        tuned=f"results/finetune/vikdf-zero-s{config['seeds'][0]}",
        dialogues=f"data/dialogues/{config['tables']['figure6']['task']}.parquet",
        shards=["data/shards/index.parquet", "data/shards/manifest.json"],
        backbones=expand("data/backbones/{name}", name=FROZEN["vikdf"]),
    output:
        "results/figure6.csv",
        report("results/figure6.svg", caption="report/figure6.rst", category="Cases"),
    log:
        "logs/tables/figure6.log",
    resources:
        gpu=1,
    params:
        flags=flags("tables", "figure6", precision=config["generate"]["precision"]),
    shell:
        "python -m vikdf.textualized --pretrained {input.pretrained:q} --tuned {input.tuned:q} --dialogues {input.dialogues:q}"
        " --shards data/shards --backbones data/backbones --output results --state-root state {params.flags} 2>&1 | keep {log:q}"


rule everything:
    """Every table and figure of the paper, each with its sha256: `sha256sum -c results/all` says whether they are still these."""
    input:
        multiext("results/table1", ".csv", ".md", ".tex"),
        [f"results/table{number}.{form}" for number in (3, 4) for form in ("csv", "md")],
        [f"results/figure{number}.{form}" for number in (5, 6, 7) for form in ("csv", "svg")],
    output:
        "results/all",
    log:
        "logs/tables/everything.log",
    shell:
        "sha256sum {input:q} > {output:q} 2> {log:q}"
