"""The model card: config.json in, README.md out. What a run made, from what, how to load it, and what not to expect of it.

    text = write(config)

`config["run"]` holds the facts of the run (None for a model that was saved by hand):
{stage: pretrain|finetune, name, seed, settings, data: {what: count or sha256}, results: {name: number}}.
"""

import json

HEAD = """---
library_name: transformers
tags:
- vikdf
- dialogue
- visual-knowledge
---

# {title}

{what}

## Use

```python
from vikdf import VIKDF

model = VIKDF.from_pretrained("THIS FOLDER")  # backbones="FOLDER" where the frozen parts do not lie in data/backbones
print(model.reply(["hello", "what colour is the kettle?"]))
```
"""
KNOWING = """
`model.knowledge(dialogue)` gives the knowledge vectors K, `model.textualize(dialogue)` lets the language model say what K
alone tells{draws}. On the command line: `vikdf reply FOLDER "..."`, `vikdf textualize`, `vikdf draw`. After
`import vikdf.model.auto`, `transformers.AutoModel.from_pretrained` loads the folder too.
"""
ALONE = """
It has no picture knowledge: `reply` is all it does. On the command line: `vikdf reply FOLDER "..."`.
"""
FROZEN = """
## Frozen parts

They are not in this folder. Loading looks for them in `data/backbones`, or where it is told, and stops if a byte differs.

| part | folder | source: hub@revision, or its form in params.yaml | sha256 |
|---|---|---|---|
"""
LIMITS = """
## Limits

- It is no better than its frozen parts, and carries what they learned, errors and prejudices included.
- K is a guess at how things look, drawn from text: an answer may state a look that is wrong.
- CLIP reads the end of a dialogue, as many tokens as its text tower takes: K knows nothing of what was said before.
- Nothing filters what it says.
"""


def write(config: dict) -> str:
    knows, run = config["source"] is not None, config["run"] or {}
    draws = ", and `model.draw(dialogue)` draws it" if config["tamim"] else ""
    text = HEAD.format(title=_title(run), what=_what(config, run))
    text += KNOWING.format(draws=draws) if knows else ALONE
    text += FROZEN + "".join(
        f"| {part} | {entry['folder']} | {entry['source'] or 'a local folder'} | `{entry['sha256']}` |\n"
        for part, entry in sorted(config["frozen"].items())
    )
    if entry := config.get("initialised_from"):
        bert = entry["bert"]
        text += f"\nThe IQ-Former began with the weights of {bert['folder']} ({bert['source'] or 'a local folder'}), "
        text += f"sha256 `{bert['sha256']}`.\n"
    return text + _trained(config) + _run(run) + LIMITS


def _title(run: dict) -> str:
    return " ".join(["VIKDF", *(str(run[key]) for key in ("stage", "name") if run.get(key))])


def _what(config: dict, run: dict) -> str:
    if config["source"] is None:
        return "A language model tuned on text-only dialogues with LoRA, without pictures: what VIKDF is compared with."
    done = (
        "fine-tuned on text-only dialogues"
        if run.get("stage") == "finetune"
        else "distilled from pictures with captions"
    )
    if config["kind"] == "VIKDFForPretraining" and not config["trained"]:
        done = "before any training: where the untrained controls begin"
    queries = config["source"]["iqformer"]["queries"]
    return (
        f"A dialogue model with implicit visual knowledge, {done}. A frozen CLIP reads the dialogue, the IQ-Former turns it "
        f"into {queries} knowledge vectors K, and a language model answers with K in its prompt. No picture is needed."
    )


def _trained(config: dict) -> str:
    if not config["trained"]:
        return "\n## Trained\n\nNothing.\n"
    heads = ("tim", "iamtm", "iakr") if config["kind"] == "Responder" else ()  # only distillation needs them
    lines = ["", "## Trained, in all stages", "", "| part | parameters | in this folder |", "|---|---:|---|"]
    for part, count in sorted(config["trained"].items()):
        name = "LoRA of the language model" if part == "llm" else part
        lines.append(f"| {name} | {count:,} | {'no' if part in heads else 'yes'} |")
    return "\n".join([*lines, f"| all | {sum(config['trained'].values()):,} | |", ""])


def _run(run: dict) -> str:
    if not run:
        return "\n## Run\n\nSaved by hand: no stage of the pipeline told how it was trained.\n"
    text = f"\n## Run\n\nStage `{run['stage']}`, seed {run['seed']}.\n"
    for title, key in {"Data": "data", "What came out": "results"}.items():
        text += f"\n{title}:\n\n" + "".join(f"- {name}: {value}\n" for name, value in sorted(run[key].items()))
    settings = json.dumps(run["settings"], indent=1, sort_keys=True, ensure_ascii=False)
    return f"{text}\nSettings:\n\n```json\n{settings}\n```\n"
