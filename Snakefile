"""VIKDF: from caption corpora and text-only dialogues to results/table1.csv and results/report.html.

In: params.yaml. Out: the tables and results/report.html. Run: snakemake --cores all
The includes stand in the order in which the work flows; each file below rules/ holds one stage.
workflow/cases.smk: table 1 of some rows, figures 5 and 6, and results/all; of the stage `tables` too.
workflow/report.smk: what is drawn and shown of the tables, and belongs to the stage `tables`.
"""


report: "workflow/report/workflow.rst"


include: "workflow/common.smk"
include: "workflow/systems.smk"
include: "workflow/rules/sources.smk"
include: "workflow/rules/filter.smk"
include: "workflow/rules/backbones.smk"
include: "workflow/rules/caption.smk"
include: "workflow/rules/shards.smk"
include: "workflow/rules/dialogues.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/finetune.smk"
include: "workflow/rules/generate.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/tables.smk"
include: "workflow/targets.smk"
include: "workflow/cases.smk"
include: "workflow/report.smk"


rule all:
    """The tables of a run and their report; `snakemake --cores all results/evidence.csv` adds the five-seed contrasts."""
    input:
        "results/table1.csv",
        "results/table1.md",
        "results/probe.csv",
        "results/report.html",


onstart:
    take_turn()


onerror:
    print(how_to_repeat(log[0]))
