"""FLOPs of a job: counted as torch and paper and pencil count them, scaled up, and never felt by the product."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import test_loop
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vikdf import costs, flops, loop

ACCELERATOR = SimpleNamespace(num_processes=1, device=torch.device("cpu"))


class Journal:
    """Keeps what is logged."""

    def __init__(self):
        self.lines = []

    def log(self, step, values):
        self.lines.append((step, values))


def numbers(**changed) -> loop.Numbers:
    return loop.Numbers(**(test_loop.SETTINGS | changed))


def batch() -> dict:
    return test_loop.fetch([(0, row) for row in range(6)])


def measured(work) -> int:
    return flops._measured(work)


def test_a_step_is_counted_as_by_hand():
    journal, objective = Journal(), test_loop.Objective()
    flops.step(journal, 0, numbers(), objective, [batch(), batch()], ACCELERATOR)
    forward = 2 * 2 * 6 * 4 * 4  # two layers of 4 x 4 over 6 rows
    backward = 2 * 6 * 4 * 4 * 2  # the frozen layer's input, the trained one's weights; its own input needs none
    assert journal.lines == [(0, {"flops_a_step": 2 * (forward + backward)})]


def test_measuring_leaves_weights_gradients_and_random_numbers_as_they_were():
    objective = test_loop.Objective()
    before = [
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
        objective.state_dict(),
    ]
    before[3] = {name: value.clone() for name, value in before[3].items()}
    flops.step(Journal(), 0, numbers(), objective, [batch()], ACCELERATOR)
    assert before[:3] == [torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()]
    assert all(torch.equal(value, before[3][name]) for name, value in objective.state_dict().items())
    assert all(value.grad is None for value in objective.parameters())


def test_a_training_that_is_measured_has_the_bits_of_one_that_is_not(tmp_path):
    plain, objective, journal = test_loop.run(tmp_path / "plain")[0], test_loop.Objective(), Journal()
    loop.train(objective, test_loop.fetch, 20, numbers(), folder=tmp_path / "measured", journal=journal)
    assert test_loop.weights(objective) == test_loop.weights(plain)
    assert [step for step, values in journal.lines if flops.STEP in values] == [0]


def test_long_trainings_are_measured_at_most_three_times_and_short_ones_once():
    assert flops.sampled(200, flops.most(200)) == {0, 66, 133}
    assert flops.sampled(5, flops.most(5)) == {0} and flops.sampled(1, flops.SAMPLES) == {0}


def test_attention_on_a_cpu_counts_as_its_products_do():
    q, k, v = (torch.randn(2, 4, length, 8) for length in (5, 7, 7))
    fused = measured(lambda: nn.functional.scaled_dot_product_attention(q, k, v))
    with sdpa_kernel(SDPBackend.MATH):
        assert fused == measured(lambda: nn.functional.scaled_dot_product_attention(q, k, v)) == 2 * 2 * 4 * 5 * 7 * 16


@pytest.mark.parametrize("graph", [False, True])
def test_recurrent_layers_count_their_matrices_at_every_place(graph):
    layer, x = nn.LSTM(6, 8, batch_first=True), torch.randn(3, 5, 6)
    once = 2 * 3 * 5 * (6 * 32 + 8 * 32)
    with torch.set_grad_enabled(graph):
        assert measured(lambda: layer(x)) == once
    if graph:
        assert measured(lambda: flops._pass(layer, lambda: layer(x)[0].sum())) == 3 * once


def test_answers_are_measured_on_the_middle_of_a_chunk():
    model, asked, journal = nn.Linear(4, 4), [], Journal()

    def answer(answerer, rows, decoding, size):
        asked.extend(rows)
        answerer(torch.ones(len(rows), 4))

    flops.answers(journal, 0, 1, answer, model, list(range(80)), {}, 8)
    assert asked == list(range(36, 44)) and journal.lines == [(0, {"flops_a_row": 2 * 16})]


def test_what_answers_elsewhere_is_not_asked_twice():
    journal = Journal()
    flops.answers(journal, 0, 1, lambda *_: pytest.fail("asked again"), nn.Identity(), [{}], {}, 8)
    assert not journal.lines


def test_what_a_system_remembers_of_a_dialogue_is_counted_and_stays():
    class Remembering(nn.Linear):
        def forward(self, row):
            self.kept[row] = self.kept.get(row) or super().forward(torch.ones(1, 4)).sum().item()

    system, journal = Remembering(4, 4), Journal()
    system.kept = before = {0: 1.5}
    flops.answers(journal, 0, 1, lambda answerer, rows, *_: answerer(rows[0]), system, [0], {}, 8)
    assert journal.lines == [(0, {"flops_a_row": 2 * 16})] and system.kept is before and before == {0: 1.5}


def test_a_backbone_is_measured_after_its_last_step():
    layer, journal = nn.Linear(4, 4), Journal()
    with flops.noting(journal):
        flops.trained(layer, lambda: layer(torch.ones(2, 4)).sum(), steps=50)
    assert journal.lines == [(50, {"flops_a_step": 2 * 2 * 2 * 16})]


def test_a_run_has_the_mean_of_its_samples_times_what_it_did():
    assert flops.total([{"flops_a_step": 10}, {"nll": 1}, {"flops_a_step": 20}], 100, 0) == 1500
    assert flops.total([{"flops_a_row": 7}], None, 30) == 210
    assert flops.total([{"nll": 1}], 100, 0) is None


def test_cost_tells_the_flops_of_a_training():
    line = {"time": 5, "step": 0, "values": {"flops_a_step": 3}}
    head = {"stage": "finetune", "name": "a", "params": {"training.micro_batch": "4"}, "time": 0}
    last = {"time": 9, "step": 8, "values": {"nll": 1.0}}
    assert costs.cost([head, line, last])["flops"] == 24
