"""ImgVAE (Yang et al. 2021): the scene behind a dialogue is a picture, seen while learning where there is one, else latent.

In: a tokenizer, a frozen CLIP's image vectors V, dialogues, pictures with captions. Out: answers. Nobody shows it a picture
while it answers. C is the context, Y the response, z the latent scene, g(z) the vector of the imagined picture.

    prior p(z|C)      posterior q(z|C,Y,V), a learned vector in V's place where no picture is seen
    g(z)              the image reconstructor: V ~ N(g(z), picture_noise^2)
    p(Y|C,g(z))       Seq2Seq's decoder, which also reads g(z): as more states to attend to, and in its first state

Objective, of each row that is to be maximised:
    bound   E_q [log p(Y|C,g(z)) + seen * log p(V|g(z))] - max(KL(q || p(z|C)), free_nats)
    use     log p(Y|C,g(m)) + seen * log p(V|g(m)), with m the mean of p(z|C): what answering does
    a row is under `use` with probability prior_share (drawn from its own seed), else under `bound`: the hybrid objective of
    Sohn et al. 2015. So the decoder also meets the latent that it will have. Free nats keep KL from collapsing; there is
    no annealing, since an objective of the loop knows no step.
Pretraining, on a picture V with a caption T, by the row's seed one of two: C=T, Y empty (text to picture: the bound of
log p(V|T)), or C empty, Y=T (a picture told: the bound of log p(V,T)). Tuning: Image-Chat's pictures are seen, Reddit has
none; there the gradient passes g by: only AdamW's decay moves it.

The paper's abstract gives the idea; prior, weights and sizes are chosen here, as is CLIP's vector in place of pixels (which
an AttnGAN would draw). PPL is that of the answering system, P(Y|C,g(m)): no sample, no bound, comparable with other rows.
Shapes: B batch, L tokens, W width, E width of V, Z of the latent, n states that g(z) becomes.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from vikdf.baselines.parts import product
from vikdf.baselines.parts.latent import Latent, divergence, draw, normal
from vikdf.baselines.parts.scenes import Scenes, vectors_of
from vikdf.baselines.parts.told import spoken
from vikdf.baselines.seq2seq import NUMBERS, Seq2Seq
from vikdf.model import checkpoint
from vikdf.model.distill import uniform
from vikdf.model.lesson import Lesson
from vikdf.model.words import Words

KIND = "imgvae"
OWN = ("latent", "picture_states", "picture_noise", "free_nats", "prior_share")


class ImgVAE(Seq2Seq):
    def __init__(
        self,
        words: Words,
        scenes: Scenes,
        *,
        width: int,
        layers: int,
        dropout: float,
        context_tokens: int,
        picture: int,
        latent: int,
        picture_states: int,
        picture_noise: float,
        free_nats: float,
        prior_share: float,
    ):
        """picture: width of V; latent: width of z; the others as in an entry of params.yaml."""
        super().__init__(words, width=width, layers=layers, dropout=dropout, context_tokens=context_tokens)
        self.settings |= {"picture": picture, "latent": latent, "picture_states": picture_states}
        self.settings |= {"picture_noise": picture_noise, "free_nats": free_nats, "prior_share": prior_share}
        self.latent, self.scenes = Latent(width=width, picture=picture, size=latent), scenes
        self.show, self.begin = nn.Linear(picture, picture_states * width), nn.Linear(picture, width)

    def gist(self, rows: list[list[int]]) -> tuple[dict[str, Tensor], Tensor]:
        """What is to be known of token rows, without a picture, and each row as one vector [B, W]."""
        ids, mask = self.words.pad(rows, self.bias.device)  # [B, L]
        states, hidden, cell = self.encoder(self.embed(ids), mask)
        whole = states.masked_fill(mask[..., None] == 0, -torch.inf).amax(1)
        return {"states": states, "mask": mask, "hidden": hidden, "cell": cell}, whole

    def shown(self, memory: dict[str, Tensor], picture: Tensor) -> dict[str, Tensor]:
        """The memory with the imagined picture [B, E] in it."""
        states = self.show(picture).unflatten(-1, (self.settings["picture_states"], -1))  # [B, n, W]
        real = memory["mask"].new_ones(states.shape[:2])
        made = {"states": torch.cat([memory["states"], states], 1), "mask": torch.cat([memory["mask"], real], 1)}
        return memory | made | {"hidden": memory["hidden"] + self.begin(picture)[:, None]}

    def imagined(self, contexts: list[list[str]]) -> Tensor:
        """g(m) of each context [B, E]: the picture that the dialogue makes it think of."""
        mean, _ = self.latent.prior_of(self.gist(self.prompts(contexts))[1])
        return self.latent.paint(mean)

    def read(self, contexts: list[list[str]]) -> dict[str, Tensor]:
        memory, context = self.gist(self.prompts(contexts))
        return self.shown(memory, self.latent.paint(self.latent.prior_of(context)[0]))

    def terms(
        self, prompts: list, responses: list[str], picture: Tensor, seen: Tensor, used: Tensor, lots: list
    ) -> dict:
        """The objective's terms of each row [B]: nll, image (0 where no picture is seen), kl (0 where the prior is used)."""
        memory, context = self.gist(prompts)
        prior = self.latent.prior_of(context)
        posterior = self.latent.posterior_of(context, self.gist(spoken(self.words, responses))[1], picture, seen)
        noise = normal(lots, 11, self.settings["latent"]).to(picture.device)
        z = torch.where(used[:, None], prior[0], draw(posterior, noise))
        imagined = self.latent.picture(z, seen)
        return {
            "nll": self.tell(self.shown(memory, imagined), responses)[0],
            "image": seen * self.unlike(imagined, picture),
            "kl": ~used * divergence(posterior, prior).clamp(min=self.settings["free_nats"]),
        }

    def used(self, lots: list[int]) -> Tensor:
        """Which rows learn with the latent that answering has [B]."""
        return (uniform(lots, 12, 1)[:, 0] < self.settings["prior_share"]).to(self.bias.device)

    def unlike(self, imagined: Tensor, picture: Tensor) -> Tensor:
        """-log p(V|g(z)) [B], without its constant."""
        return (imagined.float() - picture).square().sum(-1) / (2 * self.settings["picture_noise"] ** 2)

    def counts(self, batch: dict) -> dict[str, int]:
        pictures = sum(map(bool, self.scenes.shown(batch["pictures"])))
        return super().counts(batch) | {"image": pictures, "kl": len(batch["responses"])}

    def shares(self, batch: dict, whole: dict[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        device, rows = self.bias.device, len(batch["responses"])
        found = self.scenes.of(self.scenes.shown(batch["pictures"]), device)
        hidden = torch.zeros(rows, self.settings["picture"], device=device), torch.zeros(rows, device=device).bool()
        prompts, lots = self.prompts(batch["contexts"]), batch["lots"]
        return together(self.terms(prompts, batch["responses"], *(found or hidden), self.used(lots), lots), whole)

    def save(self, folder, *, trained: dict[str, int] | None = None, run: dict | None = None) -> None:
        product.write(folder, KIND, self.state_dict(), **self.about(), trained=trained, run=run)

    def about(self) -> dict:
        """What is written beside the weights."""
        return {"settings": self.settings, "frozen": {"clip": self.scenes.clip}, "tokenizer": self.words.tokenizer}


class Scenery(ImgVAE, Lesson):
    """What ImgVAE learns from pictures with captions; each parameter has the name that it has in ImgVAE."""

    def __init__(self, words: Words, scenes: Scenes, clip, **settings):
        super().__init__(words, scenes, picture=clip.width, **settings)
        self.clip = clip

    def frozen(self) -> list[nn.Module]:
        return [self.clip]

    def prepare(self, picture) -> Tensor:
        return self.clip.preprocess(picture)

    def telling(self, lots: list[int]) -> list[bool]:
        """Which rows tell their picture; the others imagine it from the caption."""
        return (uniform(lots, 13, 1)[:, 0] < 0.5).tolist()

    def counts(self, batch: dict) -> dict[str, int]:
        rows, telling = len(batch["captions"]), self.telling(batch["lots"])
        said = spoken(self.words, [text for text, tells in zip(batch["captions"], telling, strict=True) if tells])
        return {"nll": sum(map(len, said)), "image": rows, "kl": rows}

    def pair_terms(self, batch: dict) -> dict[str, Tensor]:
        """The objective's terms of each pair [B]."""
        telling = self.telling(batch["lots"])
        both = [*zip(batch["captions"], telling, strict=True)]
        prompts = self.captions([text for text, _ in both], [not tells for _, tells in both])
        picture = vectors_of(self.clip, batch["pictures"])  # [B, E]
        tells = torch.tensor(telling, device=picture.device)
        used = self.used(batch["lots"]) & ~tells  # nothing tells a picture that nobody saw
        said = [text if tells else "" for text, tells in both]
        terms = self.terms(prompts, said, picture, torch.ones_like(tells), used, batch["lots"])
        return terms | {"nll": tells * terms["nll"]}

    def captions(self, texts: list[str], there: list[bool]) -> list[list[int]]:
        """As contexts of one turn, or of none."""
        joined = self.words.join(
            [[text] if is_there else [] for text, is_there in zip(texts, there, strict=True)], self.context_tokens
        )
        return [[self.words.start, *row, self.words.end] for row in joined]

    def forward(self, batch: dict, whole: dict[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        return together(self.pair_terms(batch), whole)

    def judge(self, batches) -> dict[str, float]:
        """validation: the objective a token. Recall: is the picture nearest that the caption, or its own latent, gives?"""
        total, tokens, kl, seen, thought, kept = 0.0, 0, 0.0, [], [], []
        for batch in batches:
            terms = self.pair_terms(batch)
            total, tokens = total + sum(x.sum().item() for x in terms.values()), tokens + self.counts(batch)["nll"]
            found = self.pictured(batch)
            kl += found["kl"].sum().item()
            for places, name in ((seen, "picture"), (thought, "from_caption"), (kept, "from_latent")):
                places.append(found[name])
        seen, thought, kept = map(torch.cat, (seen, thought, kept))  # [N, E] each
        return {
            "validation": total / max(tokens, 1),
            "kl": kl / len(seen),
            "text_to_image_recall_at_1": recall(thought, seen),
            "latent_recall_at_1": recall(kept, seen),
            "recall_at_1_by_chance": 1 / len(seen),
            "picture_error": (kept - seen).square().mean().item(),
            "picture_error_from_caption": (thought - seen).square().mean().item(),
            "picture_error_of_mean": (seen - seen.mean(0)).square().mean().item(),
        }

    def pictured(self, batch: dict) -> dict[str, Tensor]:
        """V, g(m) of the caption, g(z) of the picture's own latent, and how much that latent tells beyond the caption."""
        picture, there = vectors_of(self.clip, batch["pictures"]), [True] * len(batch["captions"])
        context = self.gist(self.captions(batch["captions"], there))[1]
        nothing = self.gist(spoken(self.words, [""] * len(there)))[1]
        prior = self.latent.prior_of(context)
        q = self.latent.posterior_of(context, nothing, picture, torch.tensor(there, device=picture.device))
        made = {"picture": picture, "from_caption": self.latent.paint(prior[0]), "from_latent": self.latent.paint(q[0])}
        return made | {"kl": divergence(q, prior)}

    def write(self, folder: Path, shards) -> None:
        product.write(folder, KIND, product.own(self, ("clip.",)), **self.about())


def recall(guesses: Tensor, pictures: Tensor) -> float:
    """Share of guesses [N, E] that are nearest to their own picture [N, E]."""
    nearest = torch.cdist(guesses.float(), pictures.float()).argmin(1)
    return (nearest == torch.arange(len(pictures), device=pictures.device)).float().mean().item()


def together(terms: dict[str, Tensor], whole: dict[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
    """What goes down is the rows' sum of all terms a token, so that their weights are those of the bound."""
    named = {name: term.sum() / whole[name] for name, term in terms.items()}
    return sum(term.sum() for term in terms.values()) / whole["nll"], named


def learner(entry: dict, start: Path | None, places, lora: dict, seed: int) -> ImgVAE:
    """As its own pretraining left it; untrained where the entry has no `pretrain`."""
    if begun := start or places.pretrained:
        return answerer(entry, begun, places)
    from vikdf.model.encoders import CLIP

    parts = words_and_scenes(entry, places)
    width = CLIP.load(places.backbones / entry["clip"]).width
    return seeded(seed, lambda: ImgVAE(*parts, picture=width, **numbers(entry)))


def answerer(entry: dict, tuned: Path, places) -> ImgVAE:
    clip = places.backbones / entry["clip"]
    settings, tensors = product.read(tuned, KIND, {"clip": clip})
    with product.outlined(tuned, settings, tensors):
        settings = checkpoint.arguments(ImgVAE, settings, "settings")
        made = ImgVAE(Words.load(tuned), Scenes(places.pictures, clip), **settings)
    product.load(made, tensors, (), tuned, assign=True)
    return made


def pretrainer(entry: dict, places, seed: int) -> Scenery:
    from vikdf.model.encoders import CLIP

    parts, clip = words_and_scenes(entry, places), CLIP.load(places.backbones / entry["clip"])
    return seeded(seed, lambda: Scenery(*parts, clip, **numbers(entry)))


def words_and_scenes(entry: dict, places) -> tuple[Words, Scenes]:
    return Words.load(places.backbones / entry["tokenizer"]), Scenes(places.pictures, places.backbones / entry["clip"])


def numbers(entry: dict) -> dict:
    """Of an entry: the model's own."""
    return {name: entry[name] for name in (*NUMBERS, *OWN)}


def seeded(seed: int, make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()
