"""The training loop: goes on bit for bit, sums over targets, keeps the best, and stops with a word."""

import errno
import os
import shutil
import signal

import pytest
import torch
from torch import nn

from vikdf import files, loop, order, state

SETTINGS = {
    "seed": 1,
    "steps": 12,
    "processes": 1,
    "micro_batch": 6,
    "accumulate": 1,
    "learning_rate": 0.01,
    "weight_decay": 0.05,
    "schedule": "constant_after_warmup",
    "warmup": 0.25,
    "clip_norm": 1.0,
    "precision": "float32",
    "workers": 0,
    "checkpoint_every": 5,
}
ROWS = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))


class Objective(nn.Module):
    """A layer with dropout, a frozen layer, and rows that count differently."""

    def __init__(self, stop_at: int = -1):
        super().__init__()
        torch.manual_seed(0)
        self.trained, self.dropout, self.frozen = (
            nn.Linear(4, 4),
            nn.Dropout(0.3),
            nn.Linear(4, 4).requires_grad_(False),
        )
        self.calls, self.stop_at = 0, stop_at

    def counts(self, batch):
        return {"error": int((batch["x"] > 0).sum())}

    def forward(self, batch, whole):
        self.calls += 1
        if self.calls == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        errors = (self.frozen(self.dropout(self.trained(batch["x"]))) - batch["x"]) ** 2  # [B, 4]
        share = errors[batch["x"] > 0].sum() / whole["error"]
        return share, {"error": share}


def fetch(rows):
    return {"x": ROWS[[row for _, row in rows]], "keys": [f"row {row}" for _, row in rows]}


def run(folder, objective=None, **changed):
    objective = objective or Objective()
    validate = changed.pop("validate", None)
    numbers = loop.Numbers(**(SETTINGS | changed))
    return objective, loop.train(objective, fetch, len(ROWS), numbers, folder=folder, journal=None, validate=validate)


def weights(objective):
    return objective.trained.weight.detach().numpy().tobytes() + objective.trained.bias.detach().numpy().tobytes()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("stop_at", [1, 5, 8, 11])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path, uninterrupted, stop_at):
    with pytest.raises(InterruptedError, match=f"SIGTERM after step {stop_at} of 12; .* the same command goes on"):
        run(tmp_path, Objective(stop_at))
    resumed, at = run(tmp_path)
    assert resumed.calls == 12 - stop_at
    assert weights(resumed) == weights(uninterrupted[0])
    assert at.curves == uninterrupted[1].curves


def test_a_killed_run_goes_on_bit_for_bit_from_its_last_checkpoint(tmp_path, uninterrupted):
    class Killed(Objective):
        def forward(self, batch, whole):
            if self.calls == 8:
                raise MemoryError
            return super().forward(batch, whole)

    with pytest.raises(MemoryError):
        run(tmp_path, Killed())
    resumed, at = run(tmp_path)
    assert resumed.calls == 7  # steps 6 to 12: the checkpoint of step 5 was there
    assert weights(resumed) == weights(uninterrupted[0]) and at.curves == uninterrupted[1].curves


def test_loader_workers_change_nothing(tmp_path, uninterrupted):
    with pytest.raises(InterruptedError):
        run(tmp_path, Objective(7), workers=2)
    assert weights(run(tmp_path, workers=2)[0]) == weights(uninterrupted[0])


def test_a_damaged_checkpoint_is_named_and_the_one_before_serves(tmp_path, uninterrupted, capfd):
    with pytest.raises(InterruptedError):
        run(tmp_path, Objective(7))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000005", "00000007"]
    (tmp_path / "00000007/optimizer.safetensors").write_bytes(b"damaged")
    resumed, _ = run(tmp_path)
    assert "00000007 is damaged (optimizer.safetensors has changed" in capfd.readouterr().err
    assert resumed.calls == 7 and weights(resumed) == weights(uninterrupted[0])


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Two checkpoints, of steps 5 and 7."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(InterruptedError):
        run(folder, Objective(7))
    return folder


PARTS = ("state.json", "weights.safetensors", "optimizer.safetensors", "random.safetensors", "best.safetensors")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("harm", ["a bit", "cut", "gone"])
def test_a_checkpoint_that_is_harmed_in_any_part_is_not_taken(stopped, tmp_path, uninterrupted, part, harm):
    shutil.copytree(stopped, tmp_path / "a")
    path = tmp_path / "a/00000007" / part
    kept = bytearray(path.read_bytes())
    kept[len(kept) // 2] ^= 1
    path.write_bytes(kept[:-1] if harm == "cut" else kept)
    if harm == "gone":
        path.unlink()
    resumed, at = run(tmp_path / "a")
    assert resumed.calls == 7 and weights(resumed) == weights(uninterrupted[0])
    assert at.curves == uninterrupted[1].curves
    assert [path.name for path in state.standing(tmp_path / "a")] == ["00000010", "00000005"]  # both whole


def test_an_error_of_the_disk_that_may_pass_ends_the_run_and_takes_no_checkpoint_away(stopped, tmp_path, monkeypatch):
    def fails(path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    shutil.copytree(stopped, tmp_path / "a")
    monkeypatch.setattr(files, "sha256", fails)
    with pytest.raises(OSError, match="00000007 cannot be read .*Input/output error.*: repeat the command"):
        run(tmp_path / "a")
    assert [path.name for path in state.standing(tmp_path / "a")] == ["00000007", "00000005"]


def test_no_changed_bit_of_what_tells_where_a_run_stands_is_taken_for_true(stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "a")
    path, sound = tmp_path / "a/00000007/state.json", state.newest(stopped)[1]
    kept = path.read_bytes()
    for bit in range(0, 8 * len(kept), 61):  # any bit of a byte
        harmed = bytearray(kept)
        harmed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(harmed)
        found = state.newest(tmp_path / "a")[1]
        assert found["step"] == 5 or found == sound


def test_where_all_checkpoints_are_damaged_the_run_begins_anew_to_the_same_bits(
    stopped, tmp_path, uninterrupted, capfd
):
    shutil.copytree(stopped, tmp_path / "a")
    for path in (tmp_path / "a").rglob("weights.safetensors"):
        path.write_bytes(b"damaged")
    resumed, _ = run(tmp_path / "a")
    assert resumed.calls == 12 and weights(resumed) == weights(uninterrupted[0])
    assert "without one the run begins anew" in capfd.readouterr().err


def test_who_reads_the_progress_may_go_first_and_takes_no_checkpoint_with_it(tmp_path, monkeypatch):
    """With Ctrl-C, whoever reads what a job says is signalled too: the last lines go nowhere."""

    def gone(self, *_) -> None:
        if objective.calls == 3:
            raise BrokenPipeError

    objective = Objective(3)
    monkeypatch.setattr("tqdm.std.tqdm.update", gone)
    with pytest.raises(InterruptedError):
        run(tmp_path, objective)
    assert (tmp_path / "00000003/state.json").exists()


def test_micro_batches_give_the_same_step_as_the_whole_batch(tmp_path):
    class Plain(Objective):
        def __init__(self):
            super().__init__()
            self.dropout = nn.Identity()

    whole, _ = run(tmp_path / "a", Plain(), steps=3)
    parts, _ = run(tmp_path / "b", Plain(), steps=3, micro_batch=2, accumulate=3)
    assert torch.allclose(whole.trained.weight, parts.trained.weight, atol=1e-6)


def test_only_what_requires_a_gradient_is_in_a_checkpoint(tmp_path):
    from safetensors.torch import load_file

    with pytest.raises(InterruptedError):
        run(tmp_path, Objective(3))
    assert set(load_file(tmp_path / "00000003/weights.safetensors")) == {"trained.weight", "trained.bias"}
    assert {path.suffix for path in (tmp_path / "00000003").iterdir()} == {".safetensors", ".json"}


def test_validation_keeps_the_best_state_not_the_last(tmp_path):
    seen, values = [], iter([3.0, 1.0, 2.0])
    objective = Objective()

    def validate():
        assert not objective.training
        torch.rand(5)  # random numbers drawn here must not reach the training
        seen.append(weights(objective))
        return next(values)

    _, at = run(tmp_path, objective, validate=validate, validate_every=4)
    assert at.best == {"step": 8, "validation": 1.0}
    assert weights(objective) == seen[1] != seen[2]
    assert seen[2] == weights(run(tmp_path / "without")[0])


def test_the_best_state_survives_a_stop(tmp_path):
    values = {4: 1.0, 8: 2.0, 12: 3.0}
    for stop_at in (6, -1):
        objective = Objective(stop_at)
        begun = files.read_json(tmp_path / "00000006/state.json")["step"] if stop_at < 0 else 0
        try:
            at = run(tmp_path, objective, validate=lambda o=objective, b=begun: values[o.calls + b], validate_every=4)[
                1
            ]
        except InterruptedError:
            continue
    assert at.best == {"step": 4, "validation": 1.0}
    assert weights(objective) == weights(run(tmp_path / "four", steps=4, warmup=0.75)[0])


def test_the_learning_rate_rises_linearly_and_stays():
    factors = [loop.SCHEDULES["constant_after_warmup"](step, 4, 20) for step in range(6)]
    assert factors == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_the_cosine_rises_linearly_and_falls_to_nothing():
    factors = [loop.SCHEDULES["cosine_after_warmup"](step, 4, 20) for step in range(20)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factors[12] == pytest.approx(0.5) and factors[-1] < 0.02
    assert factors[4:] == sorted(factors[4:], reverse=True)


def test_a_loss_that_is_not_finite_stops_with_its_name_step_and_rows_and_keeps_the_checkpoint(tmp_path):
    class Broken(Objective):
        def forward(self, batch, whole):
            share, named = super().forward(batch, whole)
            broken = share * float("nan") if self.calls == 14 else share  # the second micro-batch of step 7
            return broken, {"error": broken}

    with pytest.raises(ValueError, match="error is nan at step 7, rows row ") as caught:
        run(tmp_path, Broken(), micro_batch=3, accumulate=2)
    batches = iter(order.Batches(len(ROWS), 6, SETTINGS["seed"]))
    seventh = [next(batches) for _ in range(7)][-1]
    assert ", ".join(f"row {row}" for _, row in seventh[3:]) + ": nothing was updated" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["00000005"]


def test_a_gradient_that_is_not_finite_stops_too_though_the_loss_is(tmp_path):
    class Steep(Objective):
        def forward(self, batch, whole):
            share, named = super().forward(batch, whole)
            if self.calls == 3:  # the root of 0 is 0, but its slope has no end
                share = share + (self.trained.bias - self.trained.bias.detach()).sum().sqrt()
            return share, named

    before = weights(run(tmp_path / "two", steps=2, warmup=1.5)[0])
    objective = Steep()
    with pytest.raises(
        ValueError, match="gradient is inf at step 3, rows (row \\d+, ){5}row \\d+: nothing was updated"
    ):
        run(tmp_path / "steep", objective)
    assert weights(objective) == before


def test_a_number_of_processes_that_does_not_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`processes` is 2, but 1 run: start with"):
        run(tmp_path, processes=2)


def test_finished_curves_hold_one_point_a_step_and_no_times(uninterrupted):
    curves = uninterrupted[1].curves
    assert [point["step"] for point in curves] == list(range(1, 13)) and set(curves[0]) == {"step", "error"}
