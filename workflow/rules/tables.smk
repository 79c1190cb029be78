# In: results/evaluate/ of every system. Out: results/table1.csv, with what the statistics say of its answers; beside it, each
# a target of its own: `evidence` (the contrasts over its own seeds), `table3` and `figure7` (ablations of pretrain, over `seeds`),
# `table4` (other language models). workflow/cases.smk has the rest.
# What is flagged as report(...) stands in the page that `snakemake --report FILE.html` makes.
rule tables:
    """Table 1 and the probe's table: means over `seeds`."""
    input:
        code=code("tables"),
        scores=[f"results/evaluate/{run}.parquet" for seed in config["seeds"] for run in runs(seed)],
        significance="results/significance.csv",
        intervals="results/intervals.csv",
    output:
        report("results/table1.csv", caption="../report/table1.rst", category="Table 1"),
        report("results/table1.md", caption="../report/table1.rst", category="Table 1"),
        report("results/table1.tex", caption="../report/table1.rst", category="Table 1"),
        report("results/probe.csv", caption="../report/probe.rst", category="Probe"),
        "results/metrics.json",
    log:
        "logs/tables/tables.log",
    params:
        folder=subpath(output[0], parent=True),
        state="state",
        flags=flags(
            "tables", "systems", "controls", "statistics", decoding=config["generate"]["decoding"], left_out=LEFT_OUT
        ),
    shell:
        "python -m vikdf.tables --scores {input.scores:q} --significance {input.significance:q} --intervals {input.intervals:q}"
        " --output {params.folder:q} --state-root {params.state:q} {params.flags} 2>&1 | keep {log:q}"


rule significance:
    """Each row of table 1 against the best other one, every number's interval, and any two rows of a task."""
    input:
        code=code("significance"),
        examples=[f"results/evaluate/examples/{run}.parquet" for seed in config["seeds"] for run in runs(seed)],
    output:
        report("results/significance.csv", caption="../report/significance.rst", category="Significance"),
        report("results/intervals.csv", caption="../report/intervals.rst", category="Significance"),
        "results/pairs.csv",
    log:
        "logs/tables/significance.log",
    params:
        folder=subpath(output[0], parent=True),
        flags=flags("tables", "systems", "controls", "statistics"),
    shell:
        "python -m vikdf.significance --examples {input.examples:q} --output {params.folder:q} {params.flags} 2>&1 | keep {log:q}"


rule evidence:
    """The systems that contrasts name, at zero data, over `evidence.seeds`: each contrast with a t-interval."""
    input:
        code=code("evidence"),
        scores=lambda _: [
            f"results/evaluate/{run}.parquet" for seed in config["evidence"]["seeds"] for run in evidence_runs(seed)
        ],
    output:
        report("results/evidence.csv", caption="../report/evidence.rst", category="Evidence"),
        "results/evidence_seeds.csv",
        "results/evidence.md",
        report("results/evidence.svg", caption="../report/evidence.rst", category="Evidence"),
    log:
        "logs/tables/evidence.log",
    params:
        flags=flags("evidence"),
    shell:
        "python -m vikdf.evidence --scores {input.scores:q} --output results --state-root state {params.flags} 2>&1 | keep {log:q}"


rule table3:
    """The paper's ablations at zero data: VIKDF without one of its parts."""
    input:
        code=code("ablations"),
        scores=expand("results/evaluate/{run}.parquet", run=ablated_runs(config["tables"]["table3"].values())),
    output:
        report("results/table3.csv", caption="../report/table3.rst", category="Ablations"),
        "results/table3.md",
    log:
        "logs/tables/table3.log",
    params:
        flags=flags("tables", "table3", seeds=config["seeds"]),
    shell:
        "python -m vikdf.ablations --scores {input.scores:q} --output results --state-root state {params.flags} 2>&1 | keep {log:q}"


rule table4:
    """Language models of several families at zero data: each alone with LoRA, and with VIKDF."""
    input:
        code=code("families"),
        scores=expand("results/evaluate/{run}.parquet", run=ablated_runs(["llm_lora", "vikdf", *ON_ALONE, *ON_KNOWING])),
    output:
        report("results/table4.csv", caption="../report/table4.rst", category="Ablations"),
        "results/table4.md",
    log:
        "logs/tables/table4.log",
    params:
        flags=flags("tables", "table4", seeds=config["seeds"], own=config["pretrain"]["llm"]),
    shell:
        "python -m vikdf.families --scores {input.scores:q} --output results --state-root state {params.flags} 2>&1 | keep {log:q}"


rule figure7:
    """VIKDF at zero data by the number of its queries, as a table and drawn."""
    input:
        code=code("queries"),
        scores=expand("results/evaluate/{run}.parquet", run=ablated_runs(config["tables"]["figure7"])),
    output:
        "results/figure7.csv",
        report("results/figure7.svg", caption="../report/figure7.rst", category="Ablations"),
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
        "python -m vikdf.queries --scores {input.scores:q} --output results --state-root state {params.flags} 2>&1 | keep {log:q}"
