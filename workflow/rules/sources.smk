# In: the corpora that params.yaml names, fetched where they are missing, and their pictures.
# Out: data/sources/<name>.parquet, failures.{parquet,txt,svg}, manifest.json last.


WORLD = ["coco/captions_train.json", "coco/images.zip", "cc3m.tsv", "cc12m.tsv", "sbu.json"]
WORLD += ["backbones/pairs.parquet", "backbones/boxes.parquet", "backbones/language.txt", "image_chat/images.zip"]
WORLD += ["probe/test.json", "lexicon.json", "manifest.json"]
WORLD += [f"{task}/{split}.json" for task in ("reddit", "image_chat") for split in ("train", "valid", "test")]


rule world:
    """Draws and publishes the embedded world, in the forms in which real corpora are published."""
    input:
        code=code("world"),
    output:
        expand("data/sources/world/{file}", file=WORLD),
    log:
        "logs/sources/world.log",
    params:
        flags=flags("sources.world"),
    shell:
        "python -m vikdf.world --output data/sources/world {params.flags} 2>&1 | keep {log:q}"


rule raw:
    """Fetches a list or an archive that is missing and has an address under sources.raw; what came stays in state/raw."""
    output:
        "{raw}",
    log:
        "logs/sources/{raw}.log",
    wildcard_constraints:
        raw=RAW,
    params:
        flags=lambda wildcards: raw_flags(wildcards.raw),
    shell:
        "python -m vikdf.corpora.raw {params.flags} --state state 2>&1 | keep {log:q}"


rule sources:
    """Reads the image-text corpora and gets their pictures; while it runs, the embedded world's web is served."""
    input:
        code=code("sources"),
        corpora=[
            entry[key]
            for entry in config["sources"]["corpora"].values()
            for key in ("captions", "images", "list", "shards")
            if entry.get(key)
        ],
    output:
        expand("data/sources/{name}.parquet", name=config["sources"]["corpora"]),
        expand("data/sources/failures.{form}", form=["parquet", "txt", "svg"]),
        "data/sources/manifest.json",
    log:
        "logs/sources/sources.log",
    priority: 4
    params:
        flags=flags("sources"),
    shell:
        "python -m vikdf.sources {params.flags} --output data/sources --state state 2>&1 | keep {log:q}"
