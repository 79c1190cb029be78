"""What the model costs: FLOPs of every part of a step, forward and backward, and the memory that its backward pass needs.

In: the model on the meta device (vikdf.backbones.shapes), lengths in tokens. Out: plain numbers for one sample.
Counted are matrix products, two FLOPs a multiplication; attention between all positions of a row, causal or not. Tests hold
the sums against torch's own counter, and the memory against what autograd keeps.

What a backward pass costs depends on what lies below: a trained matrix costs its forward three times (once more for its
weights, once more for its input), a trained matrix over frozen states twice, a frozen one below which something is
trained twice, any other once. Attention has no weights: three times where a gradient passes, else once.
"""

from dataclasses import dataclass

from vikdf.backbones.shapes import Stack
from vikdf.model.iqformer import EVERY

TRAINED, INPUT_ONLY, WEIGHTS_ONLY, NO_GRAPH = 3, 2, 2, 1  # how often the forward's FLOPs of a matrix are spent


@dataclass(frozen=True)
class Lengths:
    """Tokens of texts. A row is computed up to the longest of its micro-batch; heads run at the tokens that are there."""

    caption: int = 20  # the longest of a micro-batch
    caption_mean: float = 16
    prompt: int = 12
    template: int = 8  # what a chat template puts around a question: "<s>[INST] " and " [/INST]" of Llama-2
    opening: int = 4  # of these, before the question
    context: int = 40  # a dialogue's turns with what the template puts between them
    response: int = 16


@dataclass(frozen=True)
class Work:
    """FLOPs of one sample."""

    forward: float = 0.0
    backward: float = 0.0

    @property
    def total(self) -> float:
        return self.forward + self.backward

    def __add__(self, other: "Work") -> "Work":
        return Work(self.forward + other.forward, self.backward + other.backward)

    def __mul__(self, times: float) -> "Work":
        return Work(self.forward * times, self.backward * times)


def matrix(weights: float, positions: float, times: int) -> Work:
    once = 2 * weights * positions
    return Work(once, once * (times - 1))


def attention(width: float, queries: float, keys: float, times: int) -> Work:
    once = 4 * width * queries * keys  # weights of all pairs, then the weighted sum
    return Work(once, once * (times - 1))


def pass_through(stack: Stack, queries: float, keys: float, graph: bool) -> Work:
    """A frozen transformer; with a graph its matrices pass the gradient on to their input."""
    work = matrix(stack.matrices, queries, INPUT_ONLY if graph else NO_GRAPH)
    return work + attention(stack.attention, queries, keys, TRAINED if graph else NO_GRAPH)


def see(clip) -> Work:
    """CLIP of one picture: every patch and the pooled place are projected into the joint space."""
    patches = (clip.pixels // clip.patch) ** 2
    work = matrix(3 * clip.patch**2 * clip.vision.width, patches, NO_GRAPH)
    work += pass_through(clip.vision, patches + 1, patches + 1, graph=False)
    return work + matrix(clip.vision.width * clip.width, patches + 1, NO_GRAPH)


def read(clip, tokens: float) -> Work:
    """CLIP of one text."""
    work = pass_through(clip.text, tokens, tokens, graph=False)
    return work + matrix(clip.text.width * clip.width, tokens, NO_GRAPH)


def features(model, captions: int) -> float:
    """FLOPs of what vikdf.features makes of a picture and its captions, each in the whole context."""
    clip = model.source.clip
    return (see(clip) + read(clip, clip.context) * captions).total


def query(iqformer, sources: list[float], tuned: bool = True) -> Work:
    """IQ-Former on sources of so many states each."""
    shape = iqformer.shape
    n, width, layers = shape["queries"], shape["width"], shape["layers"]
    crossing = -(-layers // EVERY)
    times = TRAINED if tuned else NO_GRAPH
    own = layers * (4 * width**2 + 2 * width * shape["inner"]) + crossing * 2 * width**2
    work = matrix(own, n * len(sources), times) + attention(layers * width, n, n, times) * len(sources)
    for states in sources:
        keys = crossing * 2 * shape["encoder_width"] * width
        work += matrix(keys, states, WEIGHTS_ONLY if tuned else NO_GRAPH)
        work += attention(crossing * width, n, states, times)
    return work


def fuse(clip, iqformer, places: float) -> Work:
    """A fusion block over frozen states at so many places, reading K."""
    E, D, n = clip.width, iqformer.width, iqformer.shape["queries"]
    work = matrix(E**2, places, WEIGHTS_ONLY) + matrix(2 * D * E, n, TRAINED)
    return work + matrix(E**2 + 8 * E**2, places, TRAINED) + attention(E, places, n, TRAINED)


def masked_words(words: float, ratio: float, rows: int) -> tuple[float, float]:
    """Expected masked tokens of a text (one at least), and of that text of a micro-batch that has the most."""
    count = round(words)
    chances = [_binomial(count, k, ratio) for k in range(count + 1)]
    chances[1], chances[0] = chances[1] + chances[0], 0.0
    below = [sum(chances[: k + 1]) ** rows for k in range(count + 1)]
    return sum(k * p for k, p in enumerate(chances)), sum(1 - p for p in below)


def _binomial(n: int, k: int, p: float) -> float:
    from math import comb

    return comb(n, k) * p**k * (1 - p) ** (n - k)


def masked_patches(model) -> int:
    squares, inside = model.tamim.squares.shape
    return max(1, round(model.tamim.ratio * squares)) * inside


def pictured(model, wanted: tuple[str, ...]) -> bool:
    """Whether a step makes K of the picture, beside that of the text."""
    return bool({"tim", "iamtm"} & set(wanted)) or ("iaci" in wanted and model.iaci.source == "image")


def pretraining(
    model, lengths: Lengths, rows: int, wanted: tuple[str, ...], cached: bool = False, processes: int = 1
) -> dict[str, Work]:
    """One sample of a step whose micro-batches (of all processes together: TIM contrasts them) have so many rows."""
    clip, iqformer, n = model.source.clip, model.source.iqformer, model.source.queries
    patches, tokens = (clip.pixels // clip.patch) ** 2, lengths.caption + 2  # start and end
    seen, times = pictured(model, wanted), 0 if cached else 1
    made = {
        "CLIP vision": see(clip) * (times * seen + ("tamim" in wanted)),
        "CLIP text": read(clip, clip.context) * times + read(clip, tokens) * ("iamtm" in wanted),
        "IQ-Former": query(iqformer, [tokens, patches + 1] if seen else [tokens]),
    }
    if "tim" in wanted:
        made["TIM"] = _tim(model, rows)
    if "tamim" in wanted:
        places = masked_patches(model)
        decoder = matrix(clip.width * 3 * clip.patch**2, places, TRAINED)
        made["TAMIM: fusion block, image decoder"] = fuse(clip, iqformer, places) + decoder
    if "iamtm" in wanted:
        masked, most = masked_words(lengths.caption_mean, model.iamtm.ratio, rows)
        decoder = matrix(clip.width * clip.vocabulary, masked, TRAINED)
        made["IAMTM: fusion block, text decoder"] = fuse(clip, iqformer, most) + decoder
    if "iaci" in wanted or "iakr" in wanted:
        through = 2 if "iaci" in wanted and model.iaci.source == "image" else 1
        made["into the LLM"] = matrix(iqformer.width * model.llm.width, n * through, TRAINED)
    if "iaci" in wanted:
        made |= _iaci(model, lengths)
    if "iakr" in wanted:
        made |= _iakr(model, lengths, rows / processes)
    return made


def _tim(model, rows: int) -> Work:
    width, n = model.source.iqformer.width, model.source.queries
    if model.tim.text is None:
        return matrix(2 * n * width, rows, TRAINED)  # every row against all, in both directions
    projection = model.tim.text.out_features
    return matrix(2 * width * projection, 1, TRAINED) + matrix(2 * projection, rows, TRAINED)


def _iaci(model, lengths: Lengths) -> dict[str, Work]:
    llm, row = model.llm, iaci_row(model, lengths)
    head = matrix(llm.head, lengths.caption_mean + 1, INPUT_ONLY)
    return {"LLM: IACI": pass_through(llm.stack, row, row, graph=True), "LLM: IACI, head at targets": head}


def iaci_row(model, lengths: Lengths) -> int:
    """Positions: the token that ends the row is predicted, not read."""
    return lengths.template + model.source.queries + lengths.prompt + lengths.caption


def iakr_row(model, lengths: Lengths) -> tuple[int, int]:
    """Positions without a graph (prompt and text), and with one (K, of which the last is read by none, or the slots)."""
    queries = model.source.queries - (model.iakr.slots is None)
    return lengths.template + lengths.prompt + lengths.caption, queries


def _iakr(model, lengths: Lengths, rows: float) -> dict[str, Work]:
    llm, (before, queries) = model.llm, iakr_row(model, lengths)
    same = lengths.opening + lengths.prompt * (len(model.iakr.prompts) == 1)  # what all rows begin with is read once
    if llm.window:  # which counts places: vikdf.model.backbone then reads every row whole
        same = 0
    once = pass_through(llm.stack, same, same, graph=False) * (1 / rows)
    return {
        "LLM: IAKR, prompt and text": pass_through(llm.stack, before - same, before, graph=False) + once,
        "LLM: IAKR, K": pass_through(llm.stack, queries, before + queries, graph=True),
        "back from the LLM": matrix(llm.width * model.source.iqformer.width, model.source.queries, TRAINED),
    }


def tuning(responder, lengths: Lengths) -> dict[str, Work]:
    """One dialogue of fine-tuning, batches without padding: like lengths stand together."""
    llm, source, made = responder.llm, responder.source, {}
    row = lengths.template + lengths.context + lengths.response  # the token that ends it is predicted, not read
    if source is not None:
        tokens, tuned = min(lengths.context + 2, source.clip.context), responder.tune_iqformer
        made["CLIP text"] = read(source.clip, tokens)
        made["IQ-Former"] = query(source.iqformer, [tokens], tuned)
        times = TRAINED if tuned else WEIGHTS_ONLY
        made["into the LLM"] = matrix(source.iqformer.width * llm.width, source.queries, times)
        row += source.queries
    made["LLM"] = pass_through(llm.stack, row, row, graph=True)
    if source is None:  # words alone go in: what makes the first layer's q, k and v passes no gradient on
        made["LLM"] += Work(
            backward=-2 * row * llm.stack.width * (llm.stack.attention + llm.stack.keys) / llm.stack.layers
        )
    made["LLM, head at targets"] = matrix(llm.head, lengths.response + 1, INPUT_ONLY)
    if lora := sum(
        value.numel() for name, value in llm.named_parameters() if ".lora_" in name and "lm_head" not in name
    ):
        made["LoRA"] = matrix(lora, row, TRAINED)
    return made


def kept_by_llm(llm, positions: float, size: int) -> float:
    """Bytes that the frozen LLM keeps for the gradient of so many positions; its norms compute in 32 bits."""
    return positions * (llm.stack.kept * size + llm.stack.layers * 2 * 4 * llm.stack.width)


def kept_by_lora(llm, positions: float, size: int) -> float:
    """Inputs of the matrices, which frozen ones need not keep: of q, k and v, of gate and up, and of down.

    What attention gives, the input of the fourth, is kept in any case. In 16 bits LoRA's matrices, kept in 32, cast each its own.
    """
    stack = llm.stack
    casts = stack.entries if size < 4 else 2
    return positions * stack.layers * (casts * stack.width + stack.inner) * size


def kept_by_head(vocabulary: int, tokens: float) -> float:
    """The log-softmax of the logits in 32 bits; the logits themselves are let go."""
    return tokens * vocabulary * 4


def kept_by_queries(iqformer, sources: list[float], size: int) -> float:
    """Bytes that the IQ-Former keeps: inputs of its matrices (each casts its own), attention's parts, GELU, norms in 32 bits."""
    shape = iqformer.shape
    n, width, layers = shape["queries"], shape["width"], shape["layers"]
    crossing, casts = -(-layers // EVERY), size < 4  # in 32 bits the matrices share one input
    own = layers * ((9 if casts else 7) * width + 2 * shape["inner"]) * size + layers * 2 * 4 * width
    own += crossing * width * (4 * size + 4)
    read = shape["encoder_width"] * (2 * crossing if casts else 1)
    return n * len(sources) * own + sum(sources) * (crossing * 2 * width + read) * size


def kept_by_block(clip, iqformer, places: float, size: int) -> float:
    """Four inputs of matrices, attention's two parts, the feed-forward net's inside and two norms; keys and values of K, and K."""
    own = clip.width * ((4 + 2 + 2 * 4) * size + 2 * 4)
    return places * own + iqformer.shape["queries"] * (2 * clip.width + iqformer.width) * size


def pretraining_memory(model, lengths: Lengths, wanted: tuple[str, ...], size: int) -> dict[str, float]:
    """Bytes that one sample's graph holds when the backward pass begins; `size`: bytes of a number in matrix products."""
    clip, llm, iqformer = model.source.clip, model.llm, model.source.iqformer
    patches, tokens, made = (clip.pixels // clip.patch) ** 2, lengths.caption + 2, {}
    sources = [tokens, patches + 1] if pictured(model, wanted) else [tokens]
    made["IQ-Former"] = kept_by_queries(iqformer, sources, size)
    if "tamim" in wanted:
        places = masked_patches(model)
        made["TAMIM"] = kept_by_block(clip, iqformer, places, size) + places * 3 * clip.patch**2 * 4
    if "iamtm" in wanted:
        masked, most = masked_words(lengths.caption_mean, model.iamtm.ratio, 1)
        made["IAMTM"] = kept_by_block(clip, iqformer, most, size) + kept_by_head(clip.vocabulary, masked)
    if "iaci" in wanted:
        made["LLM: IACI"] = kept_by_llm(llm, iaci_row(model, lengths), size)
        made["LLM: IACI, head"] = kept_by_head(llm.vocabulary, lengths.caption_mean + 1)
    if "iakr" in wanted:
        before, queries = iakr_row(model, lengths)
        cache = llm.stack.keys * (before + queries) * size  # keys and values of what was read, and of all joined
        made["LLM: IAKR"] = kept_by_llm(llm, queries, size) + cache
    return made


def tuning_memory(responder, lengths: Lengths, size: int) -> dict[str, float]:
    llm, source, made = responder.llm, responder.source, {}
    row = lengths.template + lengths.context + lengths.response
    if source is not None:
        if responder.tune_iqformer:
            tokens = min(lengths.context + 2, source.clip.context)
            made["IQ-Former"] = kept_by_queries(source.iqformer, [tokens], size)
        row += source.queries
    made["LLM"] = kept_by_llm(llm, row, size)
    made["LLM, head"] = kept_by_head(llm.vocabulary, lengths.response + 1)
    if has_lora(llm):
        made["LoRA"] = kept_by_lora(llm, row, size)
    return made


def has_lora(llm) -> bool:
    return any(".lora_" in name for name, _ in llm.named_parameters())
