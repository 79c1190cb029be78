# In: results/evaluate/*.parquet of every system. Out: results/table1.csv, and for `evidence` the contrasts over its own seeds.
rule tables:
    """Table 1 and the probe's table: means over `seeds`."""
    input:
        code=code("tables"),
        scores=[f"results/evaluate/{run}.parquet" for seed in config["seeds"] for run in runs(seed)],
    output:
        "results/table1.csv",
        "results/table1.md",
        "results/probe.csv",
        "results/metrics.json",
    log:
        "logs/tables/tables.log",
    params:
        flags=flags("tables", decoding=config["generate"]["decoding"]),
    shell:
        "python -m vikdf.tables --scores {input.scores} --output results --state-root state {params.flags} 2>&1 | tee {log}"


rule evidence:
    """The zero-data rows and controls over `evidence.seeds`: each contrast with a t-interval."""
    input:
        code=code("evidence"),
        scores=[f"results/evaluate/{run}.parquet" for seed in config["evidence"]["seeds"] for run in zero_runs(seed)],
    output:
        "results/evidence.csv",
        "results/evidence_seeds.csv",
        "results/evidence.md",
        "results/evidence.svg",
    log:
        "logs/tables/evidence.log",
    params:
        flags=flags("evidence"),
    shell:
        "python -m vikdf.evidence --scores {input.scores} --output results --state-root state {params.flags} 2>&1 | tee {log}"
