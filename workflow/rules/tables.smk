# In: results/evaluate/*.parquet of every system. Out: results/table1.csv; beside it, each a target of its own: `evidence` (the
# contrasts over its own seeds), `table3` and `figure7` (ablations of pretrain, over `seeds`).
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
        flags=flags("tables", "systems", "controls", decoding=config["generate"]["decoding"]),
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


rule table3:
    """The paper's ablations at zero data: VIKDF without one of its parts."""
    input:
        code=code("ablations"),
        scores=expand("results/evaluate/{run}.parquet", run=ablated_runs(config["tables"]["table3"].values())),
    output:
        "results/table3.csv",
        "results/table3.md",
    log:
        "logs/tables/table3.log",
    params:
        flags=flags("tables", "table3", seeds=config["seeds"]),
    shell:
        "python -m vikdf.ablations --scores {input.scores} --output results --state-root state {params.flags} 2>&1 | tee {log}"


rule figure7:
    """VIKDF at zero data by the number of its queries, as a table and drawn."""
    input:
        code=code("queries"),
        scores=expand("results/evaluate/{run}.parquet", run=ablated_runs(config["tables"]["figure7"])),
    output:
        "results/figure7.csv",
        "results/figure7.svg",
    log:
        "logs/tables/figure7.log",
    params:
        flags=flags(
            "tables",
            "figure7",
            figure7={name: QUERIES[name] for name in config["tables"]["figure7"]},
            seeds=config["seeds"],
        ),
    shell:
        "python -m vikdf.queries --scores {input.scores} --output results --state-root state {params.flags} 2>&1 | tee {log}"
