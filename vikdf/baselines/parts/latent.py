"""The latent scene of ImgVAE: what a text may show, as a Gaussian; what shows it, as a picture's vector.

In: what an encoder read of a context and of a response [B, W], and the vectors of pictures [B, E] where one was seen.
Out: the prior p(z|C), the posterior q(z|C,Y,V), their divergence, and g(z), the vector of the imagined picture.
    prior, posterior = latent.prior_of(c), latent.posterior_of(c, y, V, seen)
    kl = divergence(posterior, prior)                    # [B], in nats
    imagined = latent.picture(draw(posterior, noise), seen)
Shapes: B batch, W width of texts, E width of pictures' vectors, Z of the latent.
"""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vikdf.model.distill import uniform

NARROWEST, WIDEST = -5.0, 2.0  # of a log deviation: beyond, one row could blow up the divergence


def layers(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, outputs))


class Latent(nn.Module):
    def __init__(self, *, width: int, picture: int, size: int):
        super().__init__()
        self.prior = layers(width, width, 2 * size)
        self.posterior = layers(3 * width, width, 2 * size)
        self.see, self.unseen = nn.Linear(picture, width), nn.Parameter(torch.zeros(width))
        self.paint = layers(size, 2 * width, picture)  # the reconstructor g

    def prior_of(self, context: Tensor) -> tuple[Tensor, Tensor]:
        return self._gaussian(self.prior(context))

    def posterior_of(self, context: Tensor, response: Tensor, picture: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """seen [B]: a row whose picture is hidden has a learned vector in its place."""
        shown = torch.where(seen[:, None], self.see(picture), self.unseen)  # [B, W]
        return self._gaussian(self.posterior(torch.cat([context, response, shown], -1)))

    def picture(self, z: Tensor, seen: Tensor) -> Tensor:
        """g(z) [B, E]; what a picture looks like is taught by rows that have one, so the others' gradient passes g by."""
        kept = {name: value.detach() for name, value in self.paint.named_parameters()}
        return torch.where(seen[:, None], self.paint(z), functional_call(self.paint, kept, (z,)))

    @staticmethod
    def _gaussian(x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log deviation [B, Z]."""
        mean, log = x.float().chunk(2, -1)
        return mean, log.clamp(NARROWEST, WIDEST)


def divergence(q: tuple[Tensor, Tensor], p: tuple[Tensor, Tensor]) -> Tensor:
    """KL(q || p) of Gaussians without covariances [B], in nats."""
    (mean, log), (about, around) = q, p
    apart = ((2 * log).exp() + (mean - about) ** 2) / (2 * (2 * around).exp())
    return (around - log + apart - 0.5).sum(-1)


def draw(q: tuple[Tensor, Tensor], noise: Tensor) -> Tensor:
    return q[0] + q[1].exp() * noise  # [B, Z]


def normal(lots: list[int], salt: int, size: int) -> Tensor:
    """Standard normal numbers of each row from the row's own seed [B, size]."""
    return torch.special.ndtri(uniform(lots, salt, size).clamp(1e-6, 1 - 1e-6))
