# In: results/generate/<system>-<fraction>-s<seed>.parquet, word vectors, an encoder if `evaluate.encoder` names one.
# Out: the same name below results/evaluate/ and below results/evaluate/examples/.
rule evaluate:
    """The metrics of Table 1 for each task, and the probe's accuracies, of one system's answers; and of each answer its part."""
    input:
        code=code("evaluate"),
        responses="results/generate/{system}-{fraction}-s{seed}.parquet",
        vectors="data/backbones/vectors",
        encoder=expand("data/backbones/{name}", name=filter(None, [config["evaluate"]["encoder"]])),
    output:
        scores="results/evaluate/{system}-{fraction}-s{seed}.parquet",
        examples="results/evaluate/examples/{system}-{fraction}-s{seed}.parquet",
    log:
        "logs/evaluate/{system}-{fraction}-s{seed}.log",
    wildcard_constraints:
        system="|".join(SYSTEMS),
        fraction="|".join(TASK),
        seed=r"\d+",
    params:
        flags=flags("evaluate", "tokenizer"),
    shell:
        "python -m vikdf.evaluate --responses {input.responses:q} --vectors {input.vectors:q} --encoder {input.encoder:q}"
        " --output {output.scores:q} --output-examples {output.examples:q} --state-root state"
        " {params.flags} 2>&1 | keep {log:q}"
