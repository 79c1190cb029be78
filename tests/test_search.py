"""Decoding of systems with a forward of their own, and their tokenizer: as transformers' own, and safe for people's texts."""

import pytest
import torch

from vikdf.model.search import search
from vikdf.model.words import Words

END, START = 2, 0


@pytest.fixture(scope="module")
def bart():
    from transformers import BartConfig, BartForConditionalGeneration, GenerationConfig

    torch.manual_seed(0)
    sides = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in SIDE.items()}
    shape = BartConfig(vocab_size=60, d_model=32, init_std=0.3, forced_eos_token_id=None, **sides)
    model = BartForConditionalGeneration(shape).eval()
    model.generation_config = GenerationConfig()
    return model


SIDE = {"layers": 2, "attention_heads": 2, "ffn_dim": 64}


@pytest.fixture(scope="module")
def read(bart):
    """Five texts of unlike length as the encoder reads them."""
    ids = torch.randint(4, 60, (5, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 6:] = mask[3, 4:] = 0
    with torch.no_grad():
        return ids, mask, bart.model.encoder(ids, attention_mask=mask).last_hidden_state


def step_of(bart):
    def step(prefix, states, mask):
        seen = bart.model.decoder(prefix, encoder_hidden_states=states, encoder_attention_mask=mask)
        return bart.lm_head(seen.last_hidden_state[:, -1])

    return step


@pytest.mark.parametrize(("beams", "no_repeat_ngram"), [(1, 0), (3, 3), (4, 2)])
def test_the_search_finds_what_transformers_own_generate_finds(bart, read, beams, no_repeat_ngram):
    from transformers import GenerationConfig

    ids, mask, states = read
    decoding = {"beams": beams, "no_repeat_ngram": no_repeat_ngram, "max_new_tokens": 12}
    found = search(step_of(bart), {"states": states, "mask": mask}, 5, start=START, end=END, **decoding)
    tokens = {"decoder_start_token_id": START, "bos_token_id": START, "eos_token_id": END, "pad_token_id": 1}
    theirs = {"num_beams": beams, "no_repeat_ngram_size": no_repeat_ngram, "max_new_tokens": 12}
    config = GenerationConfig(do_sample=False, **theirs, **tokens)
    wanted = bart.generate(ids, attention_mask=mask, generation_config=config)[:, 1:].tolist()
    assert found == [row[: row.index(END)] if END in row else row for row in wanted]


def test_a_dialogues_answer_does_not_depend_on_those_beside_it(bart, read):
    _, mask, states = read
    decoding = {"start": START, "end": END, "beams": 3, "no_repeat_ngram": 3, "max_new_tokens": 8}
    whole = search(step_of(bart), {"states": states, "mask": mask}, 5, **decoding)
    alone = [
        search(step_of(bart), {"states": states[i : i + 1], "mask": mask[i : i + 1]}, 1, **decoding)[0]
        for i in range(5)
    ]
    assert whole == alone


def test_people_cannot_write_a_control_token(backbones):
    words = Words.load(backbones["llm"])
    names = [words.tokenizer.convert_ids_to_tokens(i) for i in (words.start, words.end)]
    (row,) = words.encode([f"a {names[0]} kettle {names[1]}"])
    assert not {words.start, words.end} & set(row)


def test_of_a_long_dialogue_what_was_said_last_is_kept(backbones):
    words = Words.load(backbones["llm"])
    (whole,), (cut,) = (
        words.join([["the red kettle", "it is blue"]], 100),
        words.join([["the red kettle", "it is blue"]], 3),
    )
    assert whole.count(words.separator) == 1 and cut == whole[-3:]
