"""VIKDF: knowledge distilled from pictures into a frozen language model, as one reproducible pipeline.

Importing the package fixes, in one place, what must be fixed before any library is imported: one thread a job, the same
instruction set on every CPU (so that another machine gives the same bytes), and no call home.
"""

import importlib
import importlib.abc
import os
import sys

__version__ = "0.1.0"

FIXED = {
    "OMP_NUM_THREADS": "1",  # two jobs side by side lose nothing with one thread each, and one thread repeats bit for bit
    "MKL_NUM_THREADS": "1",
    "POLARS_MAX_THREADS": "2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",  # only `backbones` may fetch; it lifts this for entries with a hub name
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
}
for name, value in FIXED.items():
    os.environ.setdefault(name, value)


def __getattr__(name: str):
    """`from vikdf import VIKDF` imports the model only then: every command and stage begins with this file."""
    if name in ("VIKDF", "VIKDFConfig"):
        return getattr(importlib.import_module("vikdf.model.auto"), name)
    raise AttributeError(f"module 'vikdf' has no attribute {name!r}")


class _TorchvisionOperators(importlib.abc.MetaPathFinder):
    """Declares torchvision's two compiled operators just before its first import, where the build lacks them.

    The torchvision on PyPI is built for CUDA; beside a CPU torch its import stops at "operator torchvision::nms does not
    exist", and open_clip, peft and transformers stop with it. Nothing here calls these operators; beside a matching pair
    this does nothing.
    """

    def find_spec(self, fullname, path, target=None):
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            import torch

            if torch.version.cuda is None:
                self.library = torch.library.Library("torchvision", "FRAGMENT")
                for operator in ("nms", "qnms"):
                    self.library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                sys.modules["vikdf._torchvision_operators"] = self  # the library lives as long as the process
        return None


if "torchvision" not in sys.modules:
    sys.meta_path.insert(0, _TorchvisionOperators())
