"""CLIP once more, in plain numpy, for tests: weights that are a formula, and the two towers written out.

Out: tests/golden/clip.json, the vectors that every loader must give for TOKENS and pictures(), with GELU and with QuickGELU.
Run: python tests/plain_clip.py (only after the weights' formula or the sizes below were changed)
"""

import json
import math
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden/clip.json"
SIDE, PATCH, WIDTH, HEADS, LAYERS, JOINT, CONTEXT, VOCABULARY = 12, 4, 8, 2, 2, 6, 20, 512
TOKENS = np.array([[300, 7, 41, 9, 301], [300, 260, 77, 120, 301]])
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


def shapes() -> dict[str, tuple[int, ...]]:
    """open_clip's names and shapes."""
    made = {"positional_embedding": (CONTEXT, WIDTH), "text_projection": (WIDTH, JOINT), "logit_scale": ()}
    made |= {"token_embedding.weight": (VOCABULARY, WIDTH), "visual.class_embedding": (WIDTH,)}
    made |= {"visual.positional_embedding": ((SIDE // PATCH) ** 2 + 1, WIDTH), "visual.proj": (WIDTH, JOINT)}
    made |= {"visual.conv1.weight": (WIDTH, 3, PATCH, PATCH)}
    for norm in ("ln_final", "visual.ln_pre", "visual.ln_post"):
        made |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    for layer in (f"{tower}transformer.resblocks.{i}." for tower in ("", "visual.") for i in range(LAYERS)):
        for part, out, into in (
            ("mlp.c_fc", 4 * WIDTH, WIDTH),
            ("mlp.c_proj", WIDTH, 4 * WIDTH),
            ("attn.out_proj", WIDTH, WIDTH),
        ):
            made |= {f"{layer}{part}.weight": (out, into), f"{layer}{part}.bias": (out,)}
        made |= {f"{layer}attn.in_proj_weight": (3 * WIDTH, WIDTH), f"{layer}attn.in_proj_bias": (3 * WIDTH,)}
        for norm in ("ln_1", "ln_2"):
            made |= {f"{layer}{norm}.weight": (WIDTH,), f"{layer}{norm}.bias": (WIDTH,)}
    return made


def weights() -> dict[str, np.ndarray]:
    """Every weight from its place alone: no generator whose numbers another version could change."""
    made = {}
    for number, (name, shape) in enumerate(sorted(shapes().items())):
        places = np.arange(math.prod(shape), dtype=np.float64)
        values = np.sin(1.7 * places + 0.9 * number) + 0.5 * np.cos(0.37 * places * (1 + number % 5))
        centre = 1.0 if ".ln_" in f".{name}" and name.endswith("weight") else 0.0
        made[name] = (centre + 0.3 * values).reshape(shape).astype(np.float32)
    return made


def pictures() -> np.ndarray:
    places = np.arange(2 * 3 * SIDE * SIDE, dtype=np.float64)
    return np.sin(0.11 * places).reshape(2, 3, SIDE, SIDE).astype(np.float32)


def transformers_names(own: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same weights as a transformers CLIP folder names and shapes them."""
    made = {"logit_scale": own["logit_scale"]}
    made["text_projection.weight"], made["visual_projection.weight"] = own["text_projection"].T, own["visual.proj"].T
    made["text_model.embeddings.token_embedding.weight"] = own["token_embedding.weight"]
    made["text_model.embeddings.position_embedding.weight"] = own["positional_embedding"]
    made["vision_model.embeddings.class_embedding"] = own["visual.class_embedding"]
    made["vision_model.embeddings.position_embedding.weight"] = own["visual.positional_embedding"]
    made["vision_model.embeddings.patch_embedding.weight"] = own["visual.conv1.weight"]
    norms = {"ln_final": "text_model.final_layer_norm", "visual.ln_pre": "vision_model.pre_layrnorm"}
    norms["visual.ln_post"] = "vision_model.post_layernorm"
    parts = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    parts["attn.out_proj"] = "self_attn.out_proj"
    for kind in ("weight", "bias"):
        made |= {f"{theirs}.{kind}": own[f"{ours}.{kind}"] for ours, theirs in norms.items()}
        for tower, model in (("", "text_model"), ("visual.", "vision_model")):
            for i in range(LAYERS):
                ours, theirs = f"{tower}transformer.resblocks.{i}.", f"{model}.encoder.layers.{i}."
                made |= {f"{theirs}{b}.{kind}": own[f"{ours}{a}.{kind}"] for a, b in parts.items()}
                for name, part in zip("qkv", np.split(own[f"{ours}attn.in_proj_{kind}"], 3), strict=True):
                    made[f"{theirs}self_attn.{name}_proj.{kind}"] = part
    return made


def act(x: np.ndarray, kind: str) -> np.ndarray:
    if kind == "quick_gelu":
        return x / (1 + np.exp(-1.702 * x))
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def norm(x: np.ndarray, w: dict, name: str) -> np.ndarray:
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def attention(x: np.ndarray, w: dict, name: str, causal: bool) -> np.ndarray:
    joined, size = x @ w[f"{name}in_proj_weight"].T + w[f"{name}in_proj_bias"], WIDTH // HEADS  # [L, 3 width]
    heads = []
    for h in range(HEADS):
        q, k, v = (joined[:, i * WIDTH + h * size : i * WIDTH + (h + 1) * size] for i in range(3))
        scores = q @ k.T / math.sqrt(size)
        if causal:
            scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        heads.append(shares / shares.sum(-1, keepdims=True) @ v)
    return np.concatenate(heads, -1) @ w[f"{name}out_proj.weight"].T + w[f"{name}out_proj.bias"]


def tower(x: np.ndarray, w: dict, prefix: str, kind: str, causal: bool) -> np.ndarray:
    for i in range(LAYERS):
        name = f"{prefix}transformer.resblocks.{i}."
        x = x + attention(norm(x, w, f"{name}ln_1"), w, f"{name}attn.", causal)
        inner = act(norm(x, w, f"{name}ln_2") @ w[f"{name}mlp.c_fc.weight"].T + w[f"{name}mlp.c_fc.bias"], kind)
        x = x + inner @ w[f"{name}mlp.c_proj.weight"].T + w[f"{name}mlp.c_proj.bias"]
    return x


def text(tokens: np.ndarray, w: dict, kind: str) -> np.ndarray:
    """One text [L] -> [L, joint]."""
    x = w["token_embedding.weight"][tokens] + w["positional_embedding"][: len(tokens)]
    return norm(tower(x, w, "", kind, True), w, "ln_final") @ w["text_projection"]


def image(pixels: np.ndarray, w: dict, kind: str) -> np.ndarray:
    """One picture [3, S, S] -> [P, joint], the class token first."""
    rows = range(0, SIDE, PATCH)
    patches = np.stack([pixels[:, r : r + PATCH, c : c + PATCH].reshape(-1) for r in rows for c in rows])
    x = np.concatenate([w["visual.class_embedding"][None], patches @ w["visual.conv1.weight"].reshape(WIDTH, -1).T])
    x = norm(x + w["visual.positional_embedding"], w, "visual.ln_pre")
    return norm(tower(x, w, "visual.", kind, False), w, "visual.ln_post") @ w["visual.proj"]


def vectors(kind: str) -> dict[str, np.ndarray]:
    w = {name: value.astype(np.float64) for name, value in weights().items()}
    made = {"text": np.stack([text(row, w, kind) for row in TOKENS])}
    return made | {"image": np.stack([image(one, w, kind) for one in pictures().astype(np.float64)])}


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    found = {kind: {name: x.round(6).tolist() for name, x in vectors(kind).items()} for kind in ("gelu", "quick_gelu")}
    GOLDEN.write_text(json.dumps(found) + "\n")
