# In: data/filter/pairs.parquet, the captioner, CLIP. Out: data/caption/captions.parquet (all candidates),
# report.txt, report.svg and manifest.json.


rule caption:
    """Samples captions of every picture and keeps the best by CLIP, published ones among them (BLIP-2's recipe)."""
    input:
        code=code("caption"),
        pairs="data/filter/pairs.parquet",
        captioner="data/backbones/captioner",
        clip="data/backbones/clip",
        lexicon=[path for path in config["caption"]["forbid_joint"].values() if path],
    output:
        "data/caption/captions.parquet",
        "data/caption/report.txt",
        report("data/caption/report.svg", caption="../report/caption.rst", category="Data"),
        "data/caption/manifest.json",
    log:
        "logs/caption/caption.log",
    priority: 4
    resources:
        gpu=1,
    params:
        flags=flags("caption"),
    shell:
        "python -m vikdf.caption --pairs {input.pairs:q} --captioner {input.captioner:q} --clip {input.clip:q}"
        " {params.flags} --output data/caption --state-root state 2>&1 | keep {log:q}"
