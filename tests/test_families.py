"""Table 4: small language models of several families and a small BART, made from text; their rows; and the table."""

import pytest
from test_ablations import FIXED, lines, scores

from vikdf import files, params, schemas, tracking
from vikdf.backbones import bart, language
from vikdf.backbones.family import FAMILIES
from vikdf.families import families, rows_of
from vikdf.world import publish
from vikdf.world.nouns import make_nouns

SMALL = {"seed": 1, "steps": 2, "batch": 8, "learning_rate": 2e-3, "width": 64, "layers": 1, "vocabulary": 400}
DOCUMENT = "red kitchen\thello\twhat is it?\tlook at it.\tit is red."
TABLE4 = {"Llama": "llm", "Qwen2.5": "llm_qwen"}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    settings = {"seed": 1, "departs": 0.1, "pixels": 48, "backbone_images": 4, "language_texts": 200}
    publish.backbones(folder / "backbones", make_nouns(1, 20, 5), settings)
    return folder / "backbones" / "language.txt"


@pytest.fixture(scope="module")
def made(texts, tmp_path_factory):
    """Folders by family."""
    folder, told = tmp_path_factory.mktemp("families"), {}
    for family in FAMILIES:
        told[family] = language.train(texts=texts, output=folder / family, must_read=0.0, family=family, **SMALL)
    files.write_json(folder / "scores.json", told)
    return folder


@pytest.fixture(scope="module")
def small_bart(texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bart")
    return folder, bart.train(texts=texts, output=folder, **SMALL)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_what_transformers_knows_by_that_name_with_shared_heads_where_it_has_them(made, family):
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(made / family)
    assert config.model_type == family
    assert config.num_key_value_heads == config.num_attention_heads // FAMILIES[family].share


@pytest.mark.parametrize("family", FAMILIES)
def test_its_tokenizer_as_it_is_read_back_gives_the_tokens_that_it_was_taught(made, texts, family):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, words = (kind.from_pretrained(made / family) for kind in (AutoModelForCausalLM, AutoTokenizer))
    told = files.read_json(made / "scores.json")[family]
    held = texts.read_text().splitlines()[: told["held_back"]]
    again = language.reads(model.eval(), words, held, family)
    assert again == {name: told[name] for name in again} and again["read_words"] > 5


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "document", [DOCUMENT, "\twhat colour is it?\tit is red.", "small\thello\thello to you.\tbye."]
)
def test_what_it_was_taught_is_what_the_language_model_reads_later(made, family, document):
    from vikdf.model.backbone import KNOWLEDGE, LLM

    llm = LLM.load(made / family)
    hint, *turns = document.split("\t")
    *context, answer = llm.tokenize(turns)
    head = llm.tokenize([hint])[0] if hint else []
    row = llm.rows([context], len(head))[0]
    places = [i for i, token in enumerate(row) if token == KNOWLEDGE]
    for place, token in zip(places, head, strict=True):
        row[place] = token
    ids, labels = language.encode(llm.tokenizer, document, family)
    assert ids == [*row, *answer, llm.end]
    assert labels[-len(answer) - 1 :] == [*answer, llm.end]


@pytest.mark.parametrize("family", FAMILIES)
def test_of_the_template_only_what_ends_a_turn_is_learned(made, family):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(made / family)
    _, labels = language.encode(tokenizer, DOCUMENT, family)
    learned = tokenizer.decode([label for label in labels if label != -100])
    ends = FAMILIES[family].user[1].strip(), FAMILIES[family].assistant[1].strip()
    for end in ends:
        learned = learned.replace(end, " ")
    assert learned.split() == "hello what is it? look at it. it is red.".split()


def test_an_unknown_family_is_named_with_those_that_are_known(texts, tmp_path):
    with pytest.raises(ValueError, match="family is 'gemma': expected one of llama, qwen2, mistral"):
        language.train(texts=texts, output=tmp_path, must_read=0.0, family="gemma", **SMALL)


def test_a_bart_loads_with_transformers_and_its_scores_are_of_hidden_tokens(small_bart):
    from transformers import AutoTokenizer, BartForConditionalGeneration

    folder, found = small_bart
    model, tokenizer = BartForConditionalGeneration.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    start, *_, end = tokenizer("hello").input_ids
    assert (start, end) == (model.config.bos_token_id, model.config.eos_token_id)
    assert model.config.decoder_start_token_id == tokenizer.eos_token_id and tokenizer.mask_token == "<mask>"
    assert found["filled"] > 0 and 0 <= found["fill_accuracy"] <= 1


def test_a_hidden_span_is_one_mask_and_the_rest_stands_as_it_was():
    import numpy as np

    rng, ids = np.random.default_rng(0), list(range(100, 140))
    for _ in range(200):
        shown, hidden = bart.infill(ids, rng, 1)
        assert sum(hidden) <= round(bart.SHARE * 38) and not hidden[0] and not hidden[-1]
        assert [token for token in shown if token != 1] == [
            token for token, gone in zip(ids, hidden, strict=True) if not gone
        ]
        assert all(pair != (1, 1) for pair in zip(shown, shown[1:], strict=False))
        spans = sum(now and not before for before, now in zip(hidden, hidden[1:], strict=False))
        assert shown.count(1) >= spans > 0


def test_turns_of_a_bart_end_where_they_end_and_the_hint_is_not_read(small_bart):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(small_bart[0])
    said = tokenizer.decode(bart.encode(tokenizer, "red kitchen\thello\thello to you."))
    assert said.replace(" ", "") == "<s>hello</s>hellotoyou.</s>"


def test_the_same_seed_gives_the_same_bart(texts, tmp_path, small_bart):
    from vikdf import files

    (tmp_path / "again").mkdir()
    bart.train(texts=texts, output=tmp_path / "again", **SMALL)
    assert files.sha256(tmp_path / "again") == files.sha256(small_bart[0])


@pytest.fixture
def table(tmp_path, monkeypatch):
    """table(groups of scores, seeds): Table 4 of them; gives its folder."""
    monkeypatch.setattr(tracking, "send", lambda folder, store: None)

    def call(groups, seeds=(1,), output="results"):
        paths = [tmp_path / f"{number}.parquet" for number in range(len(groups))]
        for rows, path in zip(groups, paths, strict=True):
            schemas.write(rows, path, schemas.SCORES)
        asked = {"seeds": list(seeds), "table4": TABLE4, "own": "llm"}
        families(scores=paths, output=tmp_path / output, state_root=tmp_path / "state", **asked)
        return tmp_path / output

    return call


SYSTEMS = ["llm_lora", "llm_lora_on_llm_qwen", "vikdf", "vikdf_on_llm_qwen"]


def test_each_language_model_has_a_row_alone_and_one_with_vikdf_in_the_papers_order(table):
    made = [scores(system, 1, float(i)) for i, system in enumerate(SYSTEMS)]
    rows = lines(table(made) / "table4.csv")
    assert [row["system"] for row in rows] == SYSTEMS
    assert [(row["method"], row["llm"]) for row in rows] == [
        (method, llm) for method in ("LoRA", "VIKDF") for llm in TABLE4
    ]
    assert [row["reddit_ppl"] for row in rows] == [f"{i:.4f}" for i in range(4)]


def test_the_page_says_that_ppl_of_other_tokens_is_no_comparison_and_is_the_same_bytes_twice(table):
    made = [scores(system, seed, float(seed)) for system in SYSTEMS for seed in (1, 2)]
    one, two = table(made, (1, 2), "one"), table(made[::-1], (1, 2), "two")
    for name in ("table4.csv", "table4.md"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    text = (one / "table4.md").read_text()
    assert "| LoRA | Qwen2.5 | 1,000 | 1.50 ± 0.71 |" in text and "since tokens differ" in text


def test_a_row_that_was_not_made_is_named_with_the_command_that_makes_it(table):
    with pytest.raises(
        ValueError, match="scores of vikdf_on_llm_qwen seed 1: .* run `snakemake --cores all .*table4.csv`"
    ):
        table([scores(system, 1, 1.0) for system in SYSTEMS[:-1]])


def test_a_name_that_table_4_makes_by_itself_is_not_free_for_others():
    values = {"ablations": {"on_llm_qwen": {}}, "tables": {"table4": TABLE4}, "finetune": {"systems": {}}}
    values |= {"baselines": {"llm_lora": {"kind": "llm_lora", "llm": "llm"}}, "pretrain": {"llm": "llm"}}
    with pytest.raises(ValueError, match="makes on_llm_qwen by itself, but `ablations` has an entry of that name"):
        params.check_families(values, "params.yaml")
    with pytest.raises(ValueError, match="`baselines.llm_lora.llm` is llm, but `pretrain.llm` is other"):
        params.check_families(values | {"pretrain": {"llm": "other"}}, "params.yaml")
    with pytest.raises(ValueError, match="no entry llm_lora"):
        params.check_families(values | {"baselines": {}}, "params.yaml")


def test_the_rows_of_the_presets_own_language_model_are_those_of_table_1():
    assert [row["system"] for row in rows_of(TABLE4, own="llm")] == SYSTEMS
    assert FIXED["images"] == "none"
