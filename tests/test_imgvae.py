"""ImgVAE: it learns, its latent carries the picture, its divergence does not vanish, and answers are scored as they are made."""

import io
from pathlib import Path

import learns
import pytest
import torch
from PIL import Image
from test_pretrain import TRAINING, shards  # noqa: F401 - a fixture

from vikdf import files, loop, order, place, pretrain_baseline, schemas, systems
from vikdf.baselines import imgvae
from vikdf.baselines.parts import latent
from vikdf.baselines.parts.scenes import Scenes
from vikdf.decode import opened
from vikdf.systems import Places

ENTRY = {
    "kind": "imgvae",
    "tuned": True,
    "fractions": ["zero", "full"],
    "grounded": True,
    "tokenizer": "llm",
    "clip": "clip",
}
ENTRY |= {"width": 48, "layers": 1, "dropout": 0.0, "context_tokens": 32, "latent": 8, "picture_states": 2}
ENTRY |= {"picture_noise": 0.1, "free_nats": 1.0, "prior_share": 0.5, "pretrain": {"validate_every": 2, "steps": 4}}
COLOURS = [(220, 30, 30), (30, 30, 220), (30, 200, 30), (240, 240, 240), (10, 10, 10)]
COLOURS += [(230, 220, 30), (30, 220, 220), (200, 40, 200), (120, 70, 20), (250, 140, 150)]


def painted(number: int) -> bytes:
    """A picture in one colour, of its own."""
    stream = io.BytesIO()
    Image.new("RGB", (48, 48), COLOURS[number]).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """A picture for each of the ten dialogues but the last."""
    path = tmp_path_factory.mktemp("pictures") / "pictures.parquet"
    rows = [{"name": f"image_chat/{i}", "image": painted(i)} for i in range(9)]
    schemas.write(rows, path, schemas.PICTURES)
    return path


NAMES = [*(f"image_chat/{i}" for i in range(9)), ""]


@pytest.fixture(scope="module")
def places(backbones, pictures) -> Places:
    return Places(backbones["clip"].parent, pictures=pictures)


@pytest.fixture(scope="module")
def make(places):
    def made(**changed):
        return imgvae.learner(ENTRY | changed, None, places, {}, 1)

    return made


def batch(rows: list[int], pictures: list[str] = NAMES) -> dict:
    return learns.batch([(0, row) for row in rows], pictures)


@pytest.fixture(scope="module")
def taught(places):
    """After some steps on ten pictures with captions: the lesson, and its pictures as a batch."""
    lesson = imgvae.pretrainer(ENTRY, places, 1)
    seen = torch.stack([lesson.prepare(opened(painted(i))) for i in range(10)])
    said = [f"a {colour} {noun}" for noun in learns.NOUNS for colour in ("red", "blue")]

    def fetch(rows: list[tuple[int, int]]) -> dict:
        places = [row for _, row in rows]
        told = {"pictures": seen[places], "captions": [said[i] for i in places], "keys": [str(i) for i in places]}
        return told | {"lots": [order.lot(1, *row) for row in rows]}

    numbers = loop.Numbers(**(learns.NUMBERS | {"steps": 120}))
    loop.train(lesson, fetch, 10, numbers, folder=Path("/nowhere"), journal=None)
    return lesson.eval(), fetch([(0, row) for row in range(10)])


def test_training_lowers_the_loss(make, tmp_path):
    learns.lowers_loss(make, tmp_path, pictures=NAMES)


def test_ten_dialogues_are_learned_by_heart(make, tmp_path):
    learns.overfits_ten_dialogues(make, tmp_path, steps=150, pictures=NAMES)


def test_a_killed_training_goes_on_to_the_same_bits(make, tmp_path):
    learns.resumes(lambda: make(dropout=0.2), tmp_path, pictures=NAMES)


def test_a_saved_system_comes_back_and_would_be_tuned_alike(make, places, tmp_path):
    again = learns.comes_back(make(), lambda folder: imgvae.answerer(ENTRY, folder, places), tmp_path)
    whole = again.counts(batch([*range(10)]))
    assert whole["image"] == 9 and again.shares(batch([*range(10)]), whole)[1]["image"] > 0


def test_the_latent_carries_the_picture(taught):
    """What the latent of each picture is turned into is nearest to that picture; chance is one in ten."""
    lesson, seen = taught
    with torch.no_grad():
        found = lesson.judge([seen])
    assert found["latent_recall_at_1"] >= 0.9
    assert found["picture_error"] < 0.3 * found["picture_error_of_mean"]


def test_a_caption_alone_makes_it_think_of_the_right_picture(taught):
    lesson, seen = taught
    with torch.no_grad():
        assert lesson.judge([seen])["text_to_image_recall_at_1"] >= 0.5


def test_the_divergence_does_not_vanish(taught):
    """A picture tells its latent more than a text does: above the free nats, so it is no artefact of them."""
    lesson, seen = taught
    with torch.no_grad():
        nothing = [[lesson.words.start, lesson.words.end]]
        prior = lesson.latent.prior_of(lesson.gist(nothing)[1])
        found = lesson.pictured(seen)
        silent = lesson.gist(nothing * 10)[1]
        q = lesson.latent.posterior_of(silent, silent, found["picture"], torch.ones(10).bool())
        assert latent.divergence(q, prior).min() > 2 * ENTRY["free_nats"]
        assert q[0].std(0).mean() > 0.1  # and another picture has another one


def test_another_imagined_picture_makes_another_answer_likelier(taught):
    """The decoder reads the picture: its own picture makes a caption likelier than another's."""
    lesson, seen = taught
    with torch.no_grad():
        memory = lesson.gist([[lesson.words.start, lesson.words.end]] * 10)[0]
        thought = lesson.pictured(seen)["picture"]
        own = lesson.tell(lesson.shown(memory, thought), seen["captions"])[0]
        other = lesson.tell(lesson.shown(memory, thought.roll(1, 0)), seen["captions"])[0]
    assert (own < other).float().mean() >= 0.9


def test_a_row_without_a_picture_does_not_change_what_pictures_look_like(make):
    system = make()
    for names, moved in ((NAMES, True), ([""] * 10, False)):
        system.zero_grad()
        system.shares(batch([*range(10)], names), system.counts(batch([*range(10)], names)))[0].backward()
        assert any(value.grad.abs().max() > 0 for value in system.latent.paint.parameters()) == moved
        assert all(value.grad is not None for value in system.trained_parameters())  # several processes wait for each


def test_a_system_that_is_not_grounded_is_shown_no_picture(backbones):
    system = imgvae.learner(ENTRY, None, Places(backbones["clip"].parent), {}, 1)
    assert system.counts(batch([0, 1]))["image"] == 0
    assert system.shares(batch([0, 1]), system.counts(batch([0, 1])) | {"image": 1})[1]["image"] == 0


def test_a_row_has_the_same_terms_alone_and_among_others(make):
    system, rows = make().eval(), [*range(10)]
    whole = {"nll": 1, "image": 1, "kl": 1}
    together = system.shares(batch(rows), whole)[1]
    alone = [system.shares(batch([row]), whole)[1] for row in rows]
    for name in whole:
        torch.testing.assert_close(together[name], sum(one[name] for one in alone), rtol=1e-4, atol=1e-4)


def test_a_row_under_use_learns_with_the_latent_that_answering_has_and_one_under_bound_does_not(make):
    rows, whole = batch([*range(10)]), {"nll": 1, "image": 1, "kl": 1}
    use, bound = (make(prior_share=share).eval() for share in (1.0, 0.0))
    answering = use.nll(rows["contexts"], rows["responses"])[0].sum()
    used, bounded = (system.shares(rows, whole)[1] for system in (use, bound))
    torch.testing.assert_close(used["nll"], answering)
    assert used["kl"] == 0 and bounded["kl"] >= 10 * ENTRY["free_nats"]
    assert not torch.isclose(bounded["nll"], answering, rtol=1e-6) and bounded["image"] != used["image"]


def test_the_nll_is_that_of_the_steps_in_which_it_answers(make):
    system = make().eval()
    context, response = learns.TEN["contexts"][:1], learns.TEN["responses"][:1]
    ids = [system.words.start, *system.words.encode(response)[0], system.words.end]
    with torch.no_grad():
        memory = system.read(context)
        steps = [system.step(torch.tensor([ids[:i]]), **memory).log_softmax(-1)[0, ids[i]] for i in range(1, len(ids))]
        nll, tokens = system.nll(context, response)
    assert tokens.item() == len(steps)
    torch.testing.assert_close(nll[0], -sum(steps), rtol=1e-5, atol=1e-4)


def test_the_divergence_is_that_of_two_gaussians():
    from torch.distributions import Normal, kl_divergence

    q, p = ((torch.randn(3, 5), torch.randn(3, 5)) for _ in range(2))
    truth = kl_divergence(Normal(q[0], q[1].exp()), Normal(p[0], p[1].exp())).sum(-1)
    torch.testing.assert_close(latent.divergence(q, p), truth)


def test_noise_is_normal_and_each_rows_own():
    noise = latent.normal([*range(400)], 11, 50)
    assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03
    torch.testing.assert_close(noise[7:8], latent.normal([7], 11, 50))


def test_a_picture_that_is_not_there_is_named(pictures, backbones):
    with pytest.raises(ValueError, match="no picture 'image_chat/zebra'"):
        Scenes(pictures, backbones["clip"]).of(["image_chat/zebra"], "cpu")


def test_a_broken_picture_is_named(backbones, tmp_path):
    schemas.write([{"name": "image_chat/0", "image": b"GIF8"}], tmp_path / "pictures.parquet", schemas.PICTURES)
    with pytest.raises(ValueError, match="'image_chat/0' in .*pictures.parquet cannot be decoded"):
        Scenes(tmp_path / "pictures.parquet", backbones["clip"]).of(["image_chat/0"], "cpu")


def test_reading_the_pictures_touches_no_random_number(pictures, backbones):
    before = torch.get_rng_state()
    Scenes(pictures, backbones["clip"]).of(["image_chat/1"], "cpu")
    assert torch.equal(before, torch.get_rng_state())


def test_what_pairs_taught_is_where_tuning_begins_and_counts_once(shards, backbones, places, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr("vikdf.tracking.send", lambda folder, store: None)
    monkeypatch.chdir(tmp_path)
    training = TRAINING | ENTRY["pretrain"]
    told = {"system": "imgvae", "seed": 1, "entry": ENTRY, "held_back": 4, "training": training}
    folders = {"shards": shards, "backbones": places.backbones, "output": tmp_path / "learned"}
    pretrain_baseline.pretrain_baseline(**folders, state_root=tmp_path / "state", **told)
    begun = imgvae.learner(ENTRY, None, Places(places.backbones, tmp_path / "learned"), {}, 2)
    tuned = files.read_json(tmp_path / "learned" / "tuned.json")
    assert tuned == {name: value.numel() for name, value in begun.named_parameters() if value.requires_grad}
    assert files.read_json(tmp_path / "learned" / "metrics.json")["recall_at_1_by_chance"] == 0.25


def test_a_harmed_folder_is_one_sentence(make, places, tmp_path):
    cases = [({"latent": 9}, "does not fit config.json"), ({"picture_states": 10**9}, "does not fit config.json")]
    cases += [({"layers": 10**4}, "holds .* tensors"), ({"width": "wide"}, "expected a value of type int")]
    learns.is_refused_where_harmed(make, lambda folder: imgvae.answerer(ENTRY, folder, places), tmp_path, cases)


def test_a_start_of_another_clip_is_refused(make, places, tmp_path):
    import checkpoints

    make().save(tmp_path / "saved", trained={}, run=None)
    checkpoints.write_clip(tmp_path / "backbones" / "clip", seed=5)
    with pytest.raises(ValueError, match="is not the frozen part clip"):
        imgvae.answerer(ENTRY, tmp_path / "saved", Places(tmp_path / "backbones"))


def test_half_precision_gives_nearly_the_same_losses(make):
    system, rows = make().eval(), [*range(10)]
    whole = system.counts(batch(rows))
    exact = system.shares(batch(rows), whole)[1]
    with place.autocast("bfloat16"):
        for name, value in system.shares(batch(rows), whole)[1].items():
            torch.testing.assert_close(value.float(), exact[name], rtol=0.05, atol=0.05)


def test_its_entry_names_its_backbones():
    frozen = systems.frozen_inputs(ENTRY, Places(Path("b")))
    assert frozen == {"clip": Path("b/clip"), "tokenizer": Path("b/llm")}
