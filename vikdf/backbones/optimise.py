"""The short loop that trains a demo backbone: AdamW, linear warm-up, cosine decay. Backbones are made once and need no resume."""

from collections.abc import Callable

from vikdf import flops


def optimise(
    model, loss: Callable, *, steps: int, learning_rate: float, name: str, weight_decay: float = 0.05
) -> float:
    """Minimises `loss()` over the model's trainable parameters; returns the mean loss of the last tenth of the steps.

    The model is in training meanwhile, and done with it afterwards: what it has of dropout is off.
    """
    import math

    import torch
    from tqdm import tqdm

    trained = [value for value in model.parameters() if value.requires_grad]
    matrices = [value for value in trained if value.ndim > 1]
    rest = [value for value in trained if value.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), fused=True)
    warmup = max(1, steps // 10)

    def scale(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
    last = []
    model.train()
    with tqdm(range(steps), desc=name, unit="step", mininterval=5) as progress:
        for step in progress:
            value = loss()
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            last.append(value.item())
            if step % 20 == 0:
                progress.set_postfix(loss=f"{last[-1]:.3f}")
    flops.trained(model, loss, steps)
    model.eval()
    tail = last[-max(1, steps // 10) :]
    return sum(tail) / len(tail)
