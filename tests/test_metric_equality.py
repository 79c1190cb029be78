"""Ours equals plain code: the tokenizer, every metric on 5,000 odd pairs, several references; and the memory stays flat."""

import random
import tracemalloc
from collections import Counter

import numpy as np
import pytest

from benchmarks import metrics as plain
from vikdf.metrics import Answers, distinct, ead, embedding, registry, score, vectors, words


def values(hypotheses, references, **more):
    return {name: found.value for name, found in score(Answers(hypotheses, references, **more)).items()}


ODD = ["", " ", "ok", "?!", "😀 😀", "x" * 500, "word " * 150, "don't 'quote' \"me\", (please.) ", "naïve “curly” it’s"]
ODD += ["a.b.c. end. )", "tab\there\nline", "1,000.50 $3", "gonna wanna cannot gotta."]
ODD += ["rock ' n ' roll '", "e.g. U.S.A.", "\x00", "\ud800 half", "a" * 3000 + " end", "の" * 200, "zebra giraffe"]
ODD += ["the cat ran. " * 120, "\u200b", "👩‍👩‍👧 👍🏽!"]


def odd_texts(count, seed=1):
    rng = random.Random(seed)
    letters = "abcde AB.,'!?\"`-()[]{}<>;:@#$%&*…’ \t é1"
    lexicon = ["the", "a", "cat", "dog,", "runs", "red.", "it's", "can't", "cannot", "wanna", "😀", "--", "...", "n't"]
    made = []
    for _ in range(count):
        kind = rng.random()
        if kind < 0.1:
            made.append(rng.choice(ODD))
        elif kind < 0.5:
            made.append("".join(rng.choices(letters, k=rng.randint(0, 30))))
        else:
            made.append(" ".join(rng.choices(lexicon, k=rng.randint(0, 14))))
    return made


def test_the_fast_tokenizer_cuts_odd_texts_as_nltk_does():
    for text in odd_texts(4000, seed=2):
        assert words.nltk(text) == words.nltk_plain(text), repr(text)


def small_table():
    rng = np.random.default_rng(0)
    known = ["the", "cat", "dog", "runs", "red", "it", "n't", "."]
    matrix = rng.normal(size=(len(known), 7)).astype(np.float32)
    mean = matrix.mean(axis=0, dtype=np.float64)
    return vectors.Vectors("small", "0" * 64, {word: row for row, word in enumerate(known)}, matrix, mean)


ENDINGS = [
    "n't",
    "'s",
    "'m",
    "'d",
    "'ll",
    "'re",
    "'ve",
    "'t",
    "'n",
    "'ye",
    "'",
    "",
    ",",
    ".",
    "!",
    "...",
    ")",
    "s'",
    "%",
]


def test_the_fast_tokenizer_cuts_glued_endings_as_nltk_does():
    rng = random.Random(5)
    stems = ["cat", "x", "n", "3", "can", "cannot", "gimme", "wanna", "d", "more", "I", "é", "a_b", ""]
    for _ in range(4000):
        pieces = [rng.choice(stems) + rng.choice(ENDINGS) + rng.choice(ENDINGS) for _ in range(rng.randint(1, 5))]
        assert words.nltk(" ".join(pieces)) == words.nltk_plain(" ".join(pieces)), pieces


def test_all_metrics_equal_plain_code_to_eight_digits_on_5000_odd_pairs():
    hypotheses, references, table = odd_texts(5000, seed=3), odd_texts(5000, seed=4), small_table()
    assert {"", "ok", "zebra giraffe", "😀 😀"} <= {*hypotheses} & {*references}  # what is odd occurs on both sides
    found = values(hypotheses, [references], vectors=table)
    expected = plain.plain(hypotheses, references, table, square=False)
    assert len(expected) == 10
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name


def test_what_stands_beside_equals_plain_code_on_odd_pairs():
    hypotheses, references = odd_texts(2000, seed=10), odd_texts(2000, seed=11)
    found = values(hypotheses, [references])
    cut = [[words.nltk_plain(text) for text in side] for side in (hypotheses, references)]
    same = Counter(" ".join(text.lower().split()) for text in hypotheses)
    twice = [text for text in hypotheses if text.strip() and same[" ".join(text.lower().split())] > 1]
    assert found["rouge_l_f1"] == pytest.approx(plain.plain_rouge_l(cut[0], [[ref] for ref in cut[1]], beta=1))
    assert found["mean_length"] == pytest.approx(sum(map(len, cut[0])) / 2000)
    assert found["empty"] == pytest.approx(100 * sum(not text for text in cut[0]) / 2000)
    assert found["repeated"] == pytest.approx(100 * len(twice) / 2000)
    for order in (1, 2):
        said, size = plain_grams(hypotheses, order), len(plain_grams(references, 1)) ** order
        expected = size * (1 - ((size - 1) / size) ** said.total())
        assert found[f"ead{order}"] == pytest.approx(100 * len(said) / expected), order


def plain_grams(texts, order):
    cut = [text.split() for text in distinct.normalised(texts)]
    return Counter(tuple(text[i : i + order]) for text in cut for i in range(len(text) - order + 1))


def test_ngrams_of_texts_are_shared_ids():
    texts = odd_texts(300, seed=12)
    for order in (1, 2, 3):
        grams = distinct.ngrams(texts, order)
        counts = Counter(grams.flat.tolist())
        assert sorted(counts.values()) == sorted(plain_grams(texts, order).values()), order
        assert len(grams) == 300 and set(counts) == set(range(len(counts)))


def test_distinct_counted_in_blocks_equals_counting_at_once(monkeypatch):
    texts = odd_texts(500, seed=13)
    whole = distinct.counts(texts)
    monkeypatch.setattr(distinct, "BLOCK", 7)
    monkeypatch.setattr(distinct, "FRESH", 5)
    assert distinct.counts(texts) == whole == {n: (len(g), g.total()) for n in (1, 2) for g in [plain_grams(texts, n)]}


def test_ead_stays_where_dis_falls_with_length():
    rng = np.random.default_rng(0)
    lexicon = [f"w{i}" for i in range(300)]
    said = [[" ".join(rng.choice(lexicon, size)) for _ in range(400)] for size in (3, 30)]
    dis, eads = ([], [])
    for texts in said:
        found, total = distinct.counts(texts)[1]
        dis.append(distinct.distinct(found, total))
        eads.append(ead.ead(found, total, len(lexicon)))
    assert dis[0] > 5 * dis[1] and eads == pytest.approx([100, 100], abs=2)


def test_parts_of_very_long_texts_change_nothing(monkeypatch):
    hypotheses, references, table = odd_texts(100, seed=14), odd_texts(100, seed=15), small_table()
    whole = Answers(hypotheses, [references], vectors=table)
    monkeypatch.setattr(embedding, "CELLS", 40)
    monkeypatch.setattr(embedding, "WORDS", 10)
    parts = Answers(hypotheses, [references], vectors=table)
    for name in EACH:
        assert whole.each(name) == pytest.approx(parts.each(name), abs=1e-12), name


EACH = ("average", "extrema", "greedy")


def test_the_corpus_score_is_made_of_the_pieces_of_each_example():
    hypotheses, references, table = odd_texts(300, seed=16), odd_texts(300, seed=17), small_table()
    answers = Answers(hypotheses, [references], vectors=table)
    found = score(answers)
    for name in (*EACH, "rouge_l", "rouge_l_f1"):
        assert found[name].value == pytest.approx(100 * answers.each(name).mean()), name
    assert score(answers) == found  # from the pieces of each item as from sums alone


def test_blocks_of_any_size_give_the_same_scores_and_pieces(monkeypatch):
    texts, table = [odd_texts(150, seed) for seed in (20, 21, 22)], small_table()
    whole = Answers(texts[0], texts[1:], vectors=table)
    names = (*EACH, "rouge_l", "correct", "guess", "hypothesis_words", "reference_words")
    expected = {name: whole.each(name) for name in names}
    monkeypatch.setattr(registry, "BLOCK", 7)
    blocks = Answers(texts[0], texts[1:], vectors=table)
    for name, each in expected.items():
        assert blocks.each(name) == pytest.approx(each, rel=1e-12), name
    assert {name: found.value for name, found in score(blocks).items()} == pytest.approx(
        values(texts[0], texts[1:], vectors=table)
    )
    assert {name: found.signature for name, found in score(blocks).items()} == {
        name: found.signature for name, found in score(whole).items()
    }


def test_memory_beside_the_input_is_flat():
    def peak(pairs):
        hypotheses, references = (
            [f"{side} dog {i % 50} runs over the red hill" for i in range(pairs)] for side in "ab"
        )
        words.forget()
        tracemalloc.start()
        score(Answers(hypotheses, [references], vectors=small_table()))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(100)  # what is made once
    few, many = peak(4500), peak(9000)  # both fill a block
    assert many - few < 4500 * 16  # bytes: eight tell which answers are given twice; two such texts take 160


def test_with_several_references_each_metric_takes_the_best_of_them():
    hypotheses, one, two, table = odd_texts(200, 5), odd_texts(200, 6), odd_texts(200, 7), small_table()
    cut = [[words.nltk_plain(text) for text in side] for side in (hypotheses, one, two)]
    both = list(zip(cut[1], cut[2], strict=True))
    found = values(hypotheses, [one, two], vectors=table)
    assert found["bleu2"] == pytest.approx(plain.plain_bleu(cut[0], both, 2), rel=1e-9)
    assert found["rouge_l"] == pytest.approx(plain.plain_rouge_l(cut[0], both), rel=1e-9)
    apart = [Answers(hypotheses, [side], vectors=table).each("greedy") for side in (one, two)]
    assert found["greedy"] == pytest.approx(100 * np.maximum(*apart).mean(), rel=1e-9)


def test_the_square_matrix_changes_nothing():
    hypotheses, references, table = odd_texts(60, 8), odd_texts(60, 9), small_table()
    slow = plain.plain(hypotheses, references, table, square=True)
    assert slow == pytest.approx(plain.plain(hypotheses, references, table, square=False), rel=1e-9)
