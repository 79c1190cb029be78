# Everything of one stage, for the stages that run once per model, variant or system: what dvc.yaml asks for by name.
# (sources, filter, caption, shards, dialogues and tables each make all of theirs in one job.)
# Table 3 and figure 7 are targets of their own: what only they need is not in here.
ALL_RUNS = [run for seed in config["seeds"] for run in runs(seed)]
ALL_VARIANTS = sorted({entry["pretrain"] for entry in config["finetune"]["systems"].values()})
ALL_LEARNED = [
    *ALL_VARIANTS,
    *LEARNING,
]  # folders of results/pretrain: VIKDF's variants, and baselines that learn from pairs
ALL_BACKBONES = {"captioner", config["pretrain"]["clip"], "vectors", config["evaluate"]["encoder"]} - {None}
ALL_BACKBONES |= {name for variant in ALL_VARIANTS for name in PARTS[variant]}
ALL_BACKBONES |= {name for system in config["baselines"] for name in FROZEN[system]}


rule backbones_all:
    input:
        expand("data/backbones/{name}", name=[name for name in MODELS if name in ALL_BACKBONES]),


rule pretrain_all:
    input:
        expand("results/pretrain/{name}-s{seed}", name=ALL_LEARNED, seed=config["seeds"]),


rule finetune_all:
    input:
        [f"results/finetune/{run}" for run in ALL_RUNS if run.split("-")[0] not in PROMPTED],


rule generate_all:
    input:
        expand("results/generate/{run}.parquet", run=ALL_RUNS),


rule evaluate_all:
    input:
        expand("results/evaluate/{run}.parquet", run=ALL_RUNS),
