# In: the tables, curves, journals and answers of a run. Out: what is drawn and shown of them: results/cost.csv, results/figures/,
# results/report.html. All belong to the stage `tables`. What else was made (evidence, tables 2 to 4, figures 5 to 7)
# stands in the report if it is there; the report never asks for it.
rule cost:
    """What each job cost, from the journals in state/: the one table that differs from machine to machine."""
    input:
        code=code("costs"),
        table="results/table1.csv",
    output:
        "results/cost.csv",
    log:
        "logs/tables/cost.log",
    shell:
        "python -m vikdf.costs --state-root state --output {output:q} 2>&1 | keep {log:q}"


rule figures:
    """Every figure of the report, as SVG."""
    input:
        code=code("figures"),
        pretrain=expand("results/pretrain/{variant}-s{seed}", variant=ALL_VARIANTS, seed=config["seeds"]),
        finetune=[f"results/finetune/{run}" for run in ALL_RUNS if run.split("-")[0] not in PROMPTED],
        funnel="data/filter/report.parquet",
        table="results/table1.csv",
        probe="results/probe.csv",
        intervals="results/intervals.csv",
        significances="results/significance.csv",
        cost="results/cost.csv",
    output:
        report("results/figures/curves_pretrain.svg", caption="report/figures.rst", category="Figures"),
        report("results/figures/curves_finetune.svg", caption="report/figures.rst", category="Figures"),
        report("results/figures/funnel.svg", caption="report/figures.rst", category="Figures"),
        report("results/figures/fractions.svg", caption="report/figures.rst", category="Figures"),
        report("results/figures/probe.svg", caption="report/figures.rst", category="Figures"),
        report("results/figures/significance.svg", caption="report/figures.rst", category="Figures"),
        report("results/figures/cost.svg", caption="report/figures.rst", category="Figures"),
    log:
        "logs/tables/figures.log",
    params:
        flags=flags("tables", "systems", "controls") + f" --alpha {config['tables']['statistics']['alpha']}",
        pretrain=lambda _, input: [f"{folder}/curves.jsonl" for folder in input.pretrain],
        finetune=lambda _, input: [f"{folder}/curves.jsonl" for folder in input.finetune],
    shell:
        "python -m vikdf.figures --pretrain {params.pretrain:q} --finetune {params.finetune:q} --funnel {input.funnel:q}"
        " --table {input.table:q} --probe {input.probe:q} --intervals {input.intervals:q} --significances {input.significances:q}"
        " --cost {input.cost:q} --output results/figures {params.flags} 2>&1 | keep {log:q}"


rule report:
    """One page of everything that the run found; opens from a file, without a network."""
    input:
        code=code("report"),
        page=multiext("vikdf/report/", "page.html", "style.css", "script.js"),
        table1="results/table1.csv",
        below="results/table1.md",
        probed="results/probe.csv",
        significance="results/significance.csv",
        intervals="results/intervals.csv",
        pairs="results/pairs.csv",
        costs="results/cost.csv",
        answers=expand("results/evaluate/examples/{run}.parquet", run=runs(config["seeds"][0])),
        figures=rules.figures.output,
        reported=multiext("data/reported/", "table1.csv", "table2.csv", "table3.csv", "table4.csv"),
    output:
        report("results/report.html", caption="report/report.rst", category="Report"),
    log:
        "logs/tables/report.log",
    params:
        flags=flags("tables", "systems", "controls", "statistics", "shown"),
        extra=list(EXTRA),
        seen=EXTRA,
    shell:
        "python -m vikdf.report --table1 {input.table1:q} --below {input.below:q} --probed {input.probed:q}"
        " --significance {input.significance:q} --intervals {input.intervals:q} --pairs {input.pairs:q} --costs {input.costs:q}"
        " --answers {input.answers:q} --figures {input.figures:q} --reported {input.reported:q} --extra {params.extra:q}"
        " --output {output:q} --state-root state {params.flags} 2>&1 | keep {log:q}"
