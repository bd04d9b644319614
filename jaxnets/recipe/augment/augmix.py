"""AugMix."""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32, Key, UInt8

from jaxnets.preprocess import Preprocess
from jaxnets.recipe.augment.op import Keys
from jaxnets.recipe.augment.policy.blend import blend
from jaxnets.recipe.augment.policy.dialect import Dialect
from jaxnets.recipe.augment.policy.draws import chosen, draw, one_of
from jaxnets.recipe.augment.policy.engine import apply
from jaxnets.recipe.augment.policy.layer import Kind, Layer
from jaxnets.recipe.augment.policy.timm import amounts
from jaxnets.schema import Positive, Range, ZeroToOne

_OPS = (
    Kind.AUTOCONTRAST, Kind.COLOR, Kind.CONTRAST, Kind.BRIGHTNESS, Kind.SHARPNESS, Kind.EQUALIZE, Kind.ROTATE,
    Kind.POSTERIZE, Kind.SOLARIZE, Kind.SHEAR_X, Kind.SHEAR_Y, Kind.TRANSLATE_X, Kind.TRANSLATE_Y,
)  # fmt: skip
_DEEPEST = 3  # ops of a chain, where their number is drawn
_GRID = 2**16  # weights of the chains are multiples of 1 / _GRID, of which float32 holds every product exactly


@dataclass(frozen=True, kw_only=True)
class AugMix:
    """Blends an image with a mean of chains of drawn ops (Hendrycks et al. 2020), in timm's dialect.

    timm's `augmix-m3` for each image: its 13 ops, as they are in `timm_rand_augment` with `increasing`, with strengths
    drawn evenly up to the magnitude. Not the paper's loss of three copies (Jensen-Shannon). Of grey images, the op on
    colours changes nothing.
    """

    probability: ZeroToOne = 0.0  # that an image is changed; timm: 1
    magnitude: Annotated[float, Range(0, 10)] = 3.0  # most that an op is drawn of, 10 is the end of all ranges
    width: Annotated[int, Range(1, 8)] = 3  # chains
    depth: Annotated[int, Range(1, 8)] | None = None  # ops of a chain; None: 1, 2 or 3, each equally likely
    alpha: Positive = 1.0  # of the Dirichlet distribution of the chains' weights and of the Beta one of the blend

    def bind(self, preprocess: Preprocess) -> "MixedChains | None":
        """Returns the op, for images whose mean colour lies where chains leave them bare."""
        return MixedChains(spec=self, fill=preprocess.fill) if self.probability else None


class Chains(NamedTuple):
    """What is drawn for a batch."""

    kind: Int32[Array, "width b depth"]
    amount: Float32[Array, "width b depth"]
    weight: Float32[Array, "width b"]  # of a chain, adding up to 1
    share: Float32[Array, " b"]  # of the chains' mean in the result
    changed: Bool[Array, " b"]


@dataclass(frozen=True, kw_only=True)
class MixedChains:
    """The op that `AugMix` describes."""

    spec: AugMix
    fill: tuple[int, ...]  # 0 … 255 per channel

    def __call__(self, keys: Keys, images: UInt8[Array, "b h w c"]) -> UInt8[Array, "b h w c"]:
        chains = self.draw(keys, *images.shape[1:3])
        mixed = mix_chains(images, chains, self.fill)
        return jnp.where(chains.changed[:, None, None, None], mixed, images)

    def draw(self, keys: Keys, height: int, width: int) -> Chains:
        """Returns the chains of each image of so many pixels."""
        spec, depth = self.spec, self.spec.depth or _DEEPEST
        kinds, strengths = [], []
        for number in range(spec.width):
            draws = draw(keys.fold(number), depth)
            kind = chosen(jnp.asarray(_OPS, jnp.int32), one_of(draws.op, len(_OPS)))
            if spec.depth is None:
                length = 1 + one_of(draws.applied[:, :1], _DEEPEST)
                kind = jnp.where(jnp.arange(depth) < length, kind, Kind.IDENTITY)
            kinds.append(kind)
            magnitude = draws.level * spec.magnitude
            strengths.append(amounts(kind, magnitude, draws.signs(), height, width, increasing=True))
        weight, share, chance = jax.vmap(self._blends)(keys.fold(spec.width).each_epoch)
        return Chains(jnp.stack(kinds), jnp.stack(strengths), weight.T, share, chance < spec.probability)

    def _blends(self, key: Key[Array, ""]) -> tuple[Float32[Array, " width"], Float32[Array, ""], Float32[Array, ""]]:
        """Returns the chains' weights ~ Dirichlet(α, …), the blend's share ~ Beta(α, α), and a number from 0 to 1."""
        gammas, chance = jax.random.split(key)
        gamma = jax.random.loggamma(gammas, self.spec.alpha, (self.spec.width + 2,), jnp.float32)
        weight = jnp.round(jax.nn.softmax(gamma[2:]) * _GRID) / _GRID
        weight = weight.at[-1].set(jnp.maximum(1 - weight[:-1].sum(), 0))
        return weight, jax.nn.sigmoid(gamma[0] - gamma[1]), jax.random.uniform(chance, (), jnp.float32)


def mix_chains(images: UInt8[Array, "b h w c"], chains: Chains, fill: tuple[int, ...]) -> UInt8[Array, "b h w c"]:
    """Returns the images blended with the mean of their chains, both rounded down as timm does it."""
    depth = chains.kind.shape[-1]

    def add(total: Array, chain: tuple[Array, Array, Array]) -> tuple[Array, None]:
        kind, amount, weight = chain
        layers = [Layer(kind[:, i], amount[:, i]) for i in range(depth)]
        end = apply(images, layers, fill, Dialect(filter="bilinear", fill="mean"))
        return total + weight[:, None, None, None] * end.astype(jnp.float32), None

    nothing = jnp.zeros(images.shape, jnp.float32)
    mean, _ = jax.lax.scan(add, nothing, (chains.kind, chains.amount, chains.weight))
    original, mean = images.astype(jnp.float32), jnp.floor(jnp.clip(mean, 0, 255))
    return blend(original, mean, chains.share[:, None, None, None]).astype(jnp.uint8)
