# In: data/sources/<name>.parquet. Out: data/filter/pairs.parquet and the counts of what was dropped, by rule and source;
# manifest.json last.


rule filter:
    """Keeps the pairs that are worth learning from."""
    input:
        code=code("filter"),
        pairs=expand("data/sources/{name}.parquet", name=config["sources"]["corpora"]),
        blocklists=[path for path in config["filter"]["blocklists"].values() if path],
    output:
        "data/filter/pairs.parquet",
        "data/filter/report.parquet",
        "data/filter/report.txt",
        report("data/filter/report.svg", caption="../report/filter.rst", category="Data"),
        "data/filter/manifest.json",
    log:
        "logs/filter/filter.log",
    priority: 4
    params:
        flags=flags("filter"),
    shell:
        "python -m vikdf.filter --pairs {input.pairs:q} {params.flags} --output data/filter --state state 2>&1 | keep {log:q}"
