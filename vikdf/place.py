"""Where a job runs and in which numbers: on a CPU, one GPU or many; alone, or one of several processes of torchrun.

    place.process()                                    accelerate's word on device, rank and number of processes
    place.put(model, "bfloat16")                       the model on the device, what is frozen in it in half the memory
    place.put(model, "bfloat16", shard_llm=True)       and the LLM spread over the processes, where one GPU cannot hold it

What is trained stays in float32 and whole in every process, so that checkpoints and gradients are the same in any place.
"""

import os

import torch
from accelerate import PartialState
from torch import nn

MIXED = {"float32": "no", "bfloat16": "bf16"}  # of a run's `precision`: accelerate's name
FROZEN = {"float32": torch.float32, "bfloat16": torch.bfloat16}  # and what frozen weights are kept in


def process() -> PartialState:
    """Without `cpu`, accelerate would run as many lone processes as torchrun starts where there is no GPU."""
    gpus, wanted = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if torch.cuda.is_available() and wanted > gpus:
        raise ValueError(
            f"{wanted} processes on a machine of {gpus} GPUs: set `processes` to {gpus} and raise `accumulate`"
        )
    return PartialState(cpu=not torch.cuda.is_available())


def autocast(precision: str) -> torch.autocast:
    """Around what runs outside the training loop, so that halved weights and whole ones go together."""
    return torch.autocast(process().device.type, FROZEN[precision], enabled=precision != "float32")


def put(model: nn.Module, precision: str, *, shard_llm: bool = False) -> nn.Module:
    """`model` names its `frozen()` parts; what is trained inside them, as LoRA, stays whole."""
    for part in model.frozen():
        for value in part.parameters():
            if not value.requires_grad:
                value.data = value.data.to(FROZEN[precision])
    if shard_llm:
        shard(model.llm.model)
    return model.to(process().device)


def shard(llm: nn.Module) -> None:
    """Spreads the layers of a frozen LLM over all processes (FSDP): each is gathered when it runs, then let go.

    Embeddings, last norm and head stay whole: small beside the layers, and they are called by themselves. Every process
    must call the LLM equally often.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    place = process()
    if place.num_processes == 1:
        raise ValueError(
            "`shard_llm` is true, but one process runs: set `processes` to the number of GPUs, or shard_llm to false"
        )
    if any(value.requires_grad for value in llm.parameters()):
        raise ValueError(
            "`shard_llm` is true, but the LLM has LoRA: only a frozen LLM can be spread; set shard_llm to false"
        )
    mesh = init_device_mesh(place.device.type, (place.num_processes,))
    layers = [part for part in llm.modules() if type(part).__name__ in (llm._no_split_modules or ())]
    if not layers:
        raise ValueError(
            f"`shard_llm` is true, but {type(llm).__name__} does not name its layers: it cannot be spread; set shard_llm to false"
        )
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)  # else a layer would stay whole until its backward
