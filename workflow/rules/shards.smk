# In: data/caption/captions.parquet, data/filter/pairs.parquet. Out: data/shards/ (tars, index.parquet, manifest.json).


rule shards:
    """Packs the captioned pictures into tar shards with an index for random access."""
    input:
        code=code("shards"),
        captions="data/caption/captions.parquet",
        pairs="data/filter/pairs.parquet",
    output:
        "data/shards/index.parquet",
        "data/shards/manifest.json",
    log:
        "logs/shards/shards.log",
    priority: 4
    params:
        flags=flags("shards"),
    shell:
        "python -m vikdf.shards --captions {input.captions:q} --pairs {input.pairs:q} {params.flags} --output data/shards"
        " 2>&1 | keep {log:q}"
