# In: results/generate/<system>-<fraction>-s<seed>.parquet, word vectors. Out: the same name below results/evaluate/.
rule evaluate:
    """The metrics of Table 1 for each task, and the probe's accuracies, of one system's answers."""
    input:
        code=code("evaluate"),
        responses="results/generate/{system}-{fraction}-s{seed}.parquet",
        vectors="data/backbones/vectors",
    output:
        "results/evaluate/{system}-{fraction}-s{seed}.parquet",
    log:
        "logs/evaluate/{system}-{fraction}-s{seed}.log",
    params:
        flags=flags("evaluate"),
    shell:
        "python -m vikdf.evaluate --responses {input.responses} --vectors {input.vectors}"
        " --output {output} {params.flags} 2>&1 | tee {log}"
