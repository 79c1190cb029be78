"""The kinds of captioners: each is loaded from its own form, and samples what is a picture's own affair."""

import json
import shutil

import captioners
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlavaConfig

from vikdf.model import captioner as module
from vikdf.model.captioner import Captioner, Nucleus
from vikdf.sampling import numbers

COUNT, TOKENS = 3, 6


def pictures(count: int = 6) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40 + 9 * i, 60, 3), dtype=np.uint8)) for i in range(count)]


def own(keys: list[int]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(numbers(1, str(key), (COUNT, TOKENS))) for key in keys])


def sampled(captioner: Captioner, keys: list[int], top_p: float = 0.9) -> list[list[str]]:
    chosen = [pictures()[key] for key in keys]
    return captioner.sample(torch.cat([captioner.look([each]) for each in chosen]), own(keys), top_p)


@pytest.fixture(scope="module", params=captioners.KINDS)
def captioner(request, tmp_path_factory):
    return Captioner(captioners.KINDS[request.param](tmp_path_factory.mktemp("captioner") / "folder"))


def test_each_picture_gets_its_number_of_captions_and_nothing_of_the_prompt(captioner):
    found = sampled(captioner, [0, 1, 2])
    assert [len(texts) for texts in found] == [COUNT] * 3
    assert len({text for texts in found for text in texts}) > 3
    for text in (text for texts in found for text in texts):
        assert not {"<image>", "<start>", "<end>", "<pad>", "[CLS]", "[SEP]", "[PAD]"} & set(text.split())


def test_what_a_picture_gets_does_not_depend_on_batch_size_or_companions(captioner):
    whole = sampled(captioner, list(range(6)))
    assert sampled(captioner, [3]) == [whole[3]]
    assert sampled(captioner, [5, 1]) == [whole[5], whole[1]]
    assert [each for key in range(0, 6, 2) for each in sampled(captioner, [key, key + 1])] == whole


def test_what_is_said_depends_on_the_picture(captioner):
    alike = own([0, 0, 0, 0])
    seen = torch.cat([captioner.look([each]) for each in pictures()[:4]])
    assert len({tuple(texts) for texts in captioner.sample(seen, alike, 0.9)}) > 1


def test_a_nucleus_of_one_token_is_the_greedy_caption(captioner):
    chosen = captioner.look(pictures()[:2])
    first = torch.tensor([captioner.prompt] * 2)
    asked = {"input_ids": first} if captioner.prompt else {}
    plain = captioner.model.generate(
        pixel_values=torch.as_tensor(chosen), do_sample=False, num_beams=1, max_new_tokens=TOKENS, **asked
    )
    fed = len(captioner.prompt) if plain.shape[1] > TOKENS + 1 else 0
    greedy = captioner.tokenizer.batch_decode(plain[:, fed:], skip_special_tokens=True)
    said = captioner.sample(chosen, own([0, 1]), 1e-6)
    assert said == [[" ".join(text.split())] * COUNT for text in greedy]


def test_all_tokens_are_in_the_nucleus_of_one(captioner):
    assert all(len(texts) == COUNT for texts in sampled(captioner, [0, 1], top_p=1.0))


def test_more_tokens_than_a_captioner_has_places_for_are_refused_in_one_sentence(captioner):
    pixels, most = captioner.look(pictures()[:1]), captioner.most
    captioner.sample(pixels, torch.rand(1, 1, most or 100), 1.0)
    if most is None:  # T5 has no last place
        return
    with pytest.raises(
        ValueError, match=f"max_new_tokens is {most + 1}, .*set `caption.max_new_tokens`.* to {most} or"
    ):
        captioner.sample(pixels, torch.rand(1, 1, most + 1), 1.0)


def test_it_runs_in_bfloat16_as_on_a_gpu(tmp_path, monkeypatch, request, captioner):
    monkeypatch.setattr(module, "place", lambda: (torch.device("cpu"), torch.bfloat16))
    name = request.node.callspec.params["captioner"]
    halved = Captioner(captioners.KINDS[name](tmp_path / "folder"))
    assert torch.bfloat16 in {value.dtype for value in halved.model.parameters()}
    assert sampled(halved, [2]) == sampled(halved, [2])


def test_a_model_that_must_be_asked_is_refused_in_one_sentence(tmp_path):
    LlavaConfig().save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match="type 'llava', expected one .*: blip, blip-2, git, vision-encoder-decoder; name"
    ):
        Captioner(tmp_path)


def test_code_in_the_folder_is_never_run(tmp_path):
    config = {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "own.Config", "AutoModelForImageTextToText": "own.Model"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text("raise SystemExit('was run')")
    with pytest.raises(ValueError, match="code of its own is never run"):
        Captioner(tmp_path)


def test_a_folder_without_tokenizer_or_image_processor_is_named(tmp_path):
    folder = captioners.write_git(tmp_path / "git")
    for lost, word in (("tokenizer.json", "a tokenizer"), ("preprocessor_config.json", "an image processor")):
        part = tmp_path / lost
        shutil.copytree(folder, part)
        (part / lost).unlink()
        with pytest.raises(ValueError, match=f"holds no file of {word}"):
            Captioner(part)


def test_weights_that_lack_more_than_a_pooler_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = captioners.write_vit_gpt2(tmp_path / "captioner")
    weights = load_file(folder / "model.safetensors")
    weights.pop("decoder.transformer.h.1.crossattention.c_attn.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 weights .*crossattention"):
        Captioner(folder)


def test_an_old_blip2_without_image_token_is_refused_with_its_cure(tmp_path):
    with pytest.raises(ValueError, match="names no image_token_index.*newer revision"):
        Captioner(captioners.write_blip2(tmp_path / "old", image_token=False))


def test_blip2_reads_the_prompt_that_its_own_processor_makes(tmp_path):
    from transformers import AutoTokenizer, Blip2Processor, BlipImageProcessor

    folder = captioners.write_blip2(tmp_path / "blip2")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    processor = Blip2Processor(BlipImageProcessor(size=captioners.SIDE), tokenizer, num_query_tokens=4)
    plain = processor(images=pictures()[:1], text="", return_tensors="pt")
    assert Captioner(folder).prompt == plain["input_ids"][0].tolist()


def test_the_nucleus_is_drawn_by_its_probabilities():
    likely = torch.tensor([0.5, 0.3, 0.15, 0.05])
    lots = torch.from_numpy(numbers(1, "many", (20_000, 1)))
    for top_p, wanted in ((0.75, [0.5 / 0.8, 0.3 / 0.8, 0, 0]), (1.0, likely.tolist()), (1e-9, [1.0, 0, 0, 0])):
        taken = Nucleus(lots, top_p)(None, likely.log().expand(20_000, 4)).argmax(-1)
        assert (torch.bincount(taken, minlength=4) / 20_000).tolist() == pytest.approx(wanted, abs=0.015)


def test_a_forbidden_token_is_never_taken_whatever_the_number():
    scores = torch.randn(200, 50, generator=torch.manual_seed(0))
    scores[:, 25:] = -torch.inf
    for number in (0.0, 0.5, 1 - 2**-24):
        taken = Nucleus(torch.full((200, 1), number), 1.0)(None, scores).argmax(-1)
        assert int(taken.max()) < 25
