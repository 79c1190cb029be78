"""GPUs by name: what they hold and what they reach at most, for vikdf.plan. Each number beside the sheet that says it.

In: a name, or none. Out: that GPU, or all.
"""

import difflib
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    name: str
    memory: int  # the GB that it is sold with, read as GiB; its driver and ECC take some, which the plan's spare tenth covers
    tflops: float  # bf16, dense, sums in 32 bits


GPUS = [  # peak without sparsity; where a sheet names only the sparse figure, half of it
    Gpu("rtx3090", 24, 71.0),  # NVIDIA GA102 white paper: BF16 with FP32 accumulate 71
    Gpu("rtx4090", 24, 165.2),  # NVIDIA Ada white paper: BF16 with FP32 accumulate 165.2
    Gpu("rtx5090", 32, 209.5),  # NVIDIA RTX Blackwell white paper: BF16 with FP32 accumulate 209.5
    Gpu("a6000", 48, 154.8),  # NVIDIA GA102 white paper, RTX A6000: BF16 154.8
    Gpu("l40s", 48, 362.05),  # NVIDIA L40S data sheet: BFLOAT16 362.05
    Gpu("a100-40", 40, 312.0),  # NVIDIA A100 data sheet: BFLOAT16 312
    Gpu("a100-80", 80, 312.0),  # the same sheet, 80 GB
    Gpu("h100-pcie", 80, 756.5),  # NVIDIA H100 data sheet: PCIe, BFLOAT16 1,513 with sparsity
    Gpu("h100", 80, 989.5),  # the same sheet, SXM: 1,979 with sparsity
    Gpu("h200", 141, 989.5),  # NVIDIA H200 data sheet: SXM, BFLOAT16 1,979 with sparsity
    Gpu("b200", 180, 2250.0),  # NVIDIA HGX B200 data sheet: eight with 36 PFLOP/s in BF16 with sparsity, 1.44 TB
    Gpu("mi300x", 192, 1307.4),  # AMD Instinct MI300X data sheet: BF16 1,307.4
]


def gpus(name: str) -> list[Gpu]:
    found = [gpu for gpu in GPUS if gpu.name == name.lower() or not name]
    if not found:
        names = [gpu.name for gpu in GPUS]
        close = [known for known in names if name.lower() in known] or difflib.get_close_matches(
            name.lower(), names, n=1
        )
        advice = f"did you mean {' or '.join(close)}?" if close else f"expected one of {', '.join(names)}"
        raise ValueError(f"unknown GPU {name!r}; {advice}")
    return found
