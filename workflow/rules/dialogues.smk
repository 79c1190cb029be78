# In: the dialogue corpora that params.yaml names, and pictures of their training dialogues.
# Out: data/dialogues/<task>.parquet, pictures.parquet, manifest.json last.


rule dialogues:
    """Reads the text-only dialogues and puts them in one form, in the seeded order that fractions are cut from."""
    input:
        code=code("dialogues"),
        corpora=[
            entry[split]
            for entry in config["dialogues"]["corpora"].values()
            for split in ("train", "valid", "test", "pictures")
            if entry.get(split)
        ],
    output:
        expand("data/dialogues/{task}.parquet", task=config["dialogues"]["corpora"]),
        "data/dialogues/pictures.parquet",
        "data/dialogues/manifest.json",
    log:
        "logs/dialogues/dialogues.log",
    params:
        flags=flags("dialogues"),
    shell:
        "python -m vikdf.dialogues {params.flags} --output data/dialogues 2>&1 | keep {log:q}"
