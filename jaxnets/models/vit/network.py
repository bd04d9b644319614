"""Vision transformers: Dosovitskiy et al. 2021 (table 1, figure 1), with the LayerScale of DeiT III.

The image is cut into patches, each of which becomes a token; all tokens look at each other in every block, and the
head sees a class token that stands before them, or their average. A stage is a run of blocks that is frozen,
recomputed and looked at together; the papers have no others.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jaxtyping import Array, Float

from jaxnets.dtypes import widest
from jaxnets.errors import UserError
from jaxnets.models.attention import attend, attention_weights
from jaxnets.models.conv import conv2d
from jaxnets.models.family import Network, Outputs, Structure, Tokens, numbered_stages
from jaxnets.models.layers import Dropout, Head, ModuleDef, StochasticDepth, depth_rates, gelu
from jaxnets.models.mode import Train
from jaxnets.models.per_channel import LayerNorm, LayerScale
from jaxnets.models.sized import Sized
from jaxnets.models.vit.position import Grid, Position
from jaxnets.preprocess import Preprocess


class Patches(Sized):
    """Each patch of pixels as one vector: a convolution of its size and stride, `kernel` `[i, j, c, f]` and `bias`."""

    features: int
    patch: tuple[int, int]
    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b rows columns f"]:
        init = nn.initializers.lecun_normal(in_axis=(0, 1, 2), out_axis=3)
        kernel = self.param("kernel", init, (*self.patch, x.shape[-1], self.features), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        padding = ((0, 0), (0, 0))
        y = conv2d(x.astype(self.dtype), kernel.astype(self.dtype), stride=self.patch, padding=padding)
        return y + bias.astype(self.dtype)

    def sized(self, x: Array) -> tuple[int, int, Any]:
        b, rows, columns = x.shape[0], x.shape[1] // self.patch[0], x.shape[2] // self.patch[1]
        weights = self.patch[0] * self.patch[1] * x.shape[3] * self.features
        return weights + self.features, rows * columns * weights, jnp.zeros((b, rows, columns, self.features))


class ClassToken(Sized):
    """The vector that stands before those of the patches; the parameter is `embedding` `[1, 1, c]`."""

    features: int
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self) -> Float[Array, "1 1 c"]:
        return self.param("embedding", nn.initializers.zeros, (1, 1, self.features), self.param_dtype)

    def sized(self) -> tuple[int, int, Any]:
        return self.features, 0, jnp.zeros((1, 1, self.features))


class Attend(Sized):
    """What attention does with its queries, keys and values; it learns nothing."""

    heads: int

    def __call__(self, qkv: Float[Array, "b n c3"]) -> Float[Array, "b n c"]:
        return attend(qkv, self.heads)

    def sized(self, qkv: Array) -> tuple[int, int, Any]:
        """A token's query meets each key, and each value is weighed: n² · c, twice."""
        b, n, c = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
        return 0, 2 * n * n * c, jnp.zeros((b, n, c))


class Attention(nn.Module):
    """Multi-head self-attention (Dosovitskiy et al. 2021, appendix A).

    What each token takes from each other goes to the collection "intermediates" as `weights`, where that is asked for.
    """

    heads: int
    dense: ModuleDef

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        qkv = self.dense(3 * x.shape[-1], kernel_init=three_xavier_uniform, name="qkv")(x)
        if self.is_mutable_collection("intermediates"):
            self.sow("intermediates", "weights", attention_weights(qkv, self.heads))
        return self.dense(x.shape[-1], name="out")(Attend(self.heads, name="attend")(qkv))


class Block(nn.Module):
    """Attention, then two dense layers for each token by itself; a norm before both, and shortcuts (equations 2, 3)."""

    heads: int
    expand: int
    norm: ModuleDef
    dense: ModuleDef
    scale: ModuleDef | None  # LayerScale
    stochastic_depth: nn.Module

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        y = self.norm(name="norm1")(x)
        y = Attention(self.heads, self.dense, name="attention")(y)
        x = x + self.stochastic_depth(self._scaled(y, "scale1"))
        y = self.norm(name="norm2")(x)
        y = gelu(self.dense(self.expand * x.shape[-1], name="mlp1")(y))
        y = self.dense(x.shape[-1], name="mlp2")(y)
        return x + self.stochastic_depth(self._scaled(y, "scale2"))

    def _scaled(self, branch: Array, name: str) -> Array:
        return branch if self.scale is None else self.scale(name=name)(branch)


class ViT(Network):
    """A vision transformer; its features are `{"stem": …, "stage1": …, …}`, those of the patches alone."""

    patch: tuple[int, int]  # rows and columns of pixels
    grid: Grid  # patches that the position embeddings are for; they are interpolated for others
    width: int  # features of each token
    blocks: tuple[int, ...]  # of the stages
    heads: int
    num_classes: int
    single_output: bool = False  # of two classes: one output, whose logits are 0 and itself
    expand: int = 4  # features between a block's two dense layers for each that enters it
    class_token: bool = True
    token_position: bool = True  # whether the class token has a position embedding (DeiT III: False)
    pool: Literal["token", "average"] = "token"  # what the head sees: the class token, or the average of the patches
    norm_after_pool: bool = False  # the last norm is of the average, rather than of each token before
    layer_scale: float | None = None  # that the factors of each branch start at; None: there are none
    dropout: float = 0.0  # share of the features left out before the head
    stochastic_depth: float = 0.0  # share of the examples that leave out the last block's branches; fewer before it
    remat_stages: int = 0  # first ones, whose blocks are computed again for the gradient, to need less memory
    layer_norm_epsilon: float = 1e-6
    dtype: Dtype = jnp.float32
    preprocess: Preprocess | None = None  # what its images go through before; no part of the network

    @nn.compact
    def outputs(self, x: Float[Array, "b h w c"], train: Train) -> Outputs:
        if self.pool == "token" and not self.class_token:
            raise UserError("a ViT without a class token has none to pool: set its pool to average")
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": widest(self.dtype)}
        wide, c = dtypes["param_dtype"], self.width
        norm = partial(LayerNorm, epsilon=self.layer_norm_epsilon, **dtypes)
        dense = partial(nn.Dense, kernel_init=nn.initializers.xavier_uniform(), **dtypes)
        scale = None if self.layer_scale is None else partial(LayerScale, self.layer_scale, **dtypes)
        rows, columns = grid = whole_patches(self.patch, *x.shape[1:3])
        first = int(self.class_token)  # tokens before those of the patches

        def patches_of(tokens: Array) -> Float[Array, "b rows columns c"]:
            return jnp.reshape(tokens[:, first:], (tokens.shape[0], rows, columns, c))

        of_token, of_patches = Position(
            c, self.grid, self.class_token and self.token_position, param_dtype=wide, name="position"
        )(grid)
        x = Patches(c, self.patch, name="stem_conv", **dtypes)(x)
        x = x + of_patches.astype(self.dtype)
        features = {"stem": x}
        x = jnp.reshape(x, (x.shape[0], rows * columns, c))
        if self.class_token:
            token = ClassToken(c, param_dtype=wide, name="class_token")()
            token = (token + of_token if self.token_position else token).astype(self.dtype)
            # Added where zeros stand, rather than joined on: an exported graph then needs to know no batch.
            x = jnp.pad(x, ((0, 0), (1, 0), (0, 0))) + jnp.pad(token, ((0, 0), (0, x.shape[1]), (0, 0)))
        rates = iter(depth_rates(self.stochastic_depth, sum(self.blocks), from_zero=True))
        for i, count in enumerate(self.blocks, 1):
            block = nn.remat(Block) if i <= self.remat_stages else Block
            for j in range(1, count + 1):
                x = block(
                    self.heads,
                    self.expand,
                    norm=norm,
                    dense=dense,
                    scale=scale,
                    stochastic_depth=StochasticDepth(next(rates), train, parent=None),
                    name=f"stage{i}_block{j}",
                )(x)
            features[f"stage{i}"] = patches_of(x)
        last_norm = norm(name="last_norm")
        if self.pool == "token":
            x = jnp.reshape(last_norm(x[:, :1]), (x.shape[0], c))
        elif self.norm_after_pool:
            x = last_norm(x[:, first:].mean(1, dtype=wide))
        else:
            x = last_norm(x)[:, first:].mean(1, dtype=wide)
        embedding = x.astype(wide)
        x = Dropout(self.dropout, train=train, name="dropout")(embedding)
        return Outputs(features, embedding, Head(self.num_classes, self.single_output, name="head", **dtypes)(x))


def three_xavier_uniform(key: Array, shape: tuple[int, int], dtype: Any) -> Array:
    """Draws queries, keys and values as three layers of their own, whose fan they have."""
    features, total = shape
    init = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform", in_axis=0, out_axis=2, batch_axis=1)
    return jnp.reshape(init(key, (features, 3, total // 3), dtype), shape)


def whole_patches(patch: tuple[int, int], height: int, width: int) -> Grid:
    """Returns the rows and columns of patches in an image.

    Raises:
        UserError: if some would be cut.
    """
    rows, columns = height // patch[0], width // patch[1]
    if (rows * patch[0], columns * patch[1]) == (height, width) and rows and columns:
        return rows, columns
    sizes = dict.fromkeys((max(1, rows + more) * patch[0], max(1, columns + more) * patch[1]) for more in (0, 1))
    choice = " or ".join(f"{h}×{w}" for h, w in sizes)
    raise UserError(
        f"images of {height}×{width} pixels are not of whole patches of {patch[0]}×{patch[1]}: take {choice} "
        f"(config.data.image_size, config.data.test_size, config.progressive.sizes), or a model with other patches"
    )


def fields_of_size(fields: Mapping[str, Any], height: int, width: int) -> dict[str, Any]:
    """Returns the grid that a new network's position embeddings are for."""
    return {"grid": list(whole_patches(fields["patch"], height, width))}


def structure(model: ViT) -> Structure:
    """Returns the network's layers; the last norm belongs to the last block, or after pooling to the head.

    Grad-CAM looks at what the last block's attention sees, as pytorch-grad-cam does: of what the block gives the head
    sees the class token alone.
    """
    token = ("class_token",) if model.class_token else ()
    last_norm = ("last_norm",)
    return Structure(
        stem=("stem_conv", *token, "position"),
        stages=numbered_stages(model.blocks, last=() if model.norm_after_pool else last_norm),
        head="head",
        before_head=last_norm if model.norm_after_pool else (),
        seen="norm1",
        tokens=Tokens(patch=model.patch, first=len(token), pooled=model.pool, attention="attention"),
    )
