"""Which channels of a network belong together, found by following them through its program.

A channel is an index of an axis of a parameter. What is added or multiplied place by place has the same channels; a
shortcut so ties a block's output to its input, a depthwise convolution its output to its input, and a norm or a gate
what they scale. Channels that are tied are cut together or not at all. Fang et al. 2023 (DepGraph) find the same groups
by rules between layers, where this follows what each layer computes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict

from jaxnets.dtypes import widest
from jaxnets.errors import UserError
from jaxnets.models.conv import plain_convolutions
from jaxnets.models.family import Path, Variables

Numbers = np.ndarray  # of channels, int64
Label = tuple[Numbers | None, ...]  # of an array: the channels of each axis, None where it has pixels, say


@dataclass(frozen=True)
class Product:
    """A convolution or a dense layer: places · (channels in) · (channels out) multiply-adds for an image."""

    places: int  # of the output, times those of the kernel
    features: Numbers
    channels: Numbers | None  # None: one for each feature


@dataclass(frozen=True, kw_only=True)
class Coupling:
    """The channels of a network, those that belong together under one number: 0, 1, …, count - 1."""

    count: int
    axes: dict[tuple[Path, int], Numbers]  # by a parameter's path, collection first, and its axis
    products: tuple[Product, ...]
    prunable: np.ndarray  # bool, of each: whether it may be cut

    def groups(self) -> list[Numbers]:
        """Returns those that may be cut, together with all others that lie in the same axes."""
        lies_in: list[list[int]] = [[] for _ in range(self.count)]
        for number, channels in enumerate(self.axes.values()):
            for channel in np.unique(channels):
                lies_in[channel].append(number)
        found: dict[tuple[int, ...], list[int]] = {}
        for channel in np.flatnonzero(self.prunable):
            found.setdefault(tuple(lies_in[channel]), []).append(int(channel))
        return [np.asarray(channels) for channels in found.values()]

    def multiply_adds(self, kept: np.ndarray) -> int:
        """Returns those of an image, in a network that keeps some of its channels; `kept` is a bool of each."""
        return sum(
            product.places
            * int(kept[product.features].sum())
            * (1 if product.channels is None else int(kept[product.channels].sum()))
            for product in self.products
        )

    def cut(self, variables: Variables, kept: np.ndarray) -> Variables:
        """Returns the variables without the channels that are not kept."""

        def smaller(path: Any, x: Any) -> np.ndarray:
            x, names = np.asarray(x), tuple(part.key for part in path)
            for axis in range(x.ndim):
                if (names, axis) in self.axes:
                    x = np.compress(kept[self.axes[names, axis]], x, axis)
            return x

        return jax.tree_util.tree_map_with_path(smaller, variables)

    def masked(self, variables: Variables, kept: np.ndarray) -> Variables:
        """Returns variables of the same shapes, whose norms give zeros in the channels that are not kept."""

        def zeroed(path: Any, x: Any) -> np.ndarray:
            names = tuple(part.key for part in path)
            return np.where(kept[self.axes[names, 0]], x, 0) if _of_norm(names, self.axes) else np.asarray(x)

        return jax.tree_util.tree_map_with_path(zeroed, variables)


def _of_norm(path: Path, axes: Any) -> bool:
    """Tells whether a parameter is a norm's scale or bias."""
    return path[0] == "params" and path[-1] in ("scale", "bias") and ((*path[:-1], "scale"), 0) in axes


def couple(model: nn.Module, variables: Variables, height: int, width: int, channels: int) -> Coupling:
    """Follows the channels of a network through its program, for images of a size.

    Those of the images, of the logits, of convolutions in groups and of what no norm scales are not to be cut.

    Raises:
        UserError: if it does something with its channels that is not known here.
    """
    image = jax.ShapeDtypeStruct((1, height, width, channels), jnp.float32)
    plain: Any = model
    shapes: Any = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, widest(plain.dtype)), variables)
    with plain_convolutions():
        program = jax.make_jaxpr(lambda variables, x: plain.apply(variables, x, train=False))(shapes, image)
    walk = _Walk(type(model).__name__)
    leaves = [(tuple(part.key for part in path), x) for path, x in jax.tree_util.tree_leaves_with_path(shapes)]
    labels = [
        tuple(walk.new(n) if _has_channels(x, axis) else None for axis, n in enumerate(x.shape)) for _, x in leaves
    ]
    seen = walk.new(channels)
    (logits,) = walk.through(program.jaxpr, [*labels, (None, None, None, seen)])
    walk.fix(seen, logits[-1])
    return walk.result({path: label for (path, _), label in zip(leaves, labels, strict=True)})


def _has_channels(x: Any, axis: int) -> bool:
    return axis >= x.ndim - 2


class _Walk:
    """Numbers of channels, and which of them are one, as a program is followed."""

    def __init__(self, network: str) -> None:
        self.network = network
        self.parent: list[int] = []
        self.fixed: list[Numbers] = []
        self.products: list[Product] = []

    def new(self, count: int) -> Numbers:
        numbers = np.arange(len(self.parent), len(self.parent) + count)
        self.parent.extend(numbers.tolist())
        return numbers

    def find(self, number: int) -> int:
        root = number
        while self.parent[root] != root:
            root = self.parent[root]
        while self.parent[number] != root:
            self.parent[number], number = root, self.parent[number]
        return root

    def tie(self, a: Numbers | None, b: Numbers | None) -> Numbers | None:
        """Returns the channels of two axes that are one."""
        if a is None or b is None or a is b:
            return b if a is None else a
        for x, y in zip(a.tolist(), b.tolist(), strict=True):
            x, y = self.find(x), self.find(y)
            self.parent[max(x, y)] = min(x, y)
        return a

    def fix(self, *channels: Numbers | None) -> None:
        self.fixed += [own for own in channels if own is not None]

    def result(self, labels: dict[Path, Label]) -> Coupling:
        roots = np.asarray([self.find(number) for number in range(len(self.parent))])
        names, numbers = np.unique(roots, return_inverse=True)
        axes = {
            (path, axis): numbers[own]
            for path, label in labels.items()
            for axis, own in enumerate(label)
            if own is not None
        }
        prunable = np.zeros(len(names), bool)
        for (path, _), own in axes.items():
            if path[-1] == "var":
                prunable[own] = True
        for own in self.fixed:
            prunable[numbers[own]] = False
        products = tuple(
            Product(x.places, numbers[x.features], None if x.channels is None else numbers[x.channels])
            for x in self.products
        )
        return Coupling(count=len(names), axes=axes, products=products, prunable=prunable)

    def through(self, program: Any, labels: Sequence[Label]) -> list[Label]:
        """Returns the labels of what a program gives, from those of its arguments."""
        known: dict[Any, Label] = dict(zip(program.invars, labels, strict=True))

        def label(atom: Any) -> Label:
            if hasattr(atom, "val") or atom not in known:  # a constant
                return (None,) * len(atom.aval.shape)
            return known[atom]

        for equation in program.eqns:
            own = [label(atom) for atom in equation.invars]
            inner = [found for found in map(_program, equation.params.values()) if found is not None]
            name = equation.primitive.name
            if name in _RULES:
                given = [_RULES[name](self, equation, own)]
            elif not any(channels is not None for each in own for channels in each):
                given = [(None,) * len(variable.aval.shape) for variable in equation.outvars]
            elif len(inner) == 1 and len(inner[0].invars) == len(own):
                given = self.through(inner[0], own)
            else:
                raise self.unknown(name)
            known.update(zip(equation.outvars, given, strict=True))
        return [label(atom) for atom in program.outvars]

    def unknown(self, what: str) -> UserError:
        return UserError(
            f"the channels of this {self.network} cannot be cut, since it does something with them that is not known "
            f"({what}): prune single weights (--method magnitude)"
        )


def _program(value: Any) -> Any:
    """Returns the program that a parameter of an equation is, where it is one."""
    value = getattr(value, "jaxpr", value)
    return value if hasattr(value, "eqns") else None


Rule = Callable[[_Walk, Any, list[Label]], Label]


def _shapes(equation: Any) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
    return [atom.aval.shape for atom in equation.invars], equation.outvars[0].aval.shape


def _place_by_place(walk: _Walk, equation: Any, labels: list[Label]) -> Label:
    inputs, output = _shapes(equation)
    result: list[Numbers | None] = [None] * len(output)
    for label, shape in zip(labels, inputs, strict=True):
        for axis, channels in enumerate(label):
            if shape[axis] == output[axis]:  # else it is 1, and the same for all channels
                result[axis] = walk.tie(result[axis], channels)
    return tuple(result)


def _broadcast(walk: _Walk, equation: Any, labels: list[Label]) -> Label:
    inputs, output = _shapes(equation)
    result: list[Numbers | None] = [None] * len(output)
    for axis, place in enumerate(equation.params["broadcast_dimensions"]):
        if inputs[0][axis] == output[place]:
            result[place] = labels[0][axis]
    return tuple(result)


def _reshape(walk: _Walk, equation: Any, labels: list[Label]) -> Label:
    """Of reshapes that add or take away axes of 1, and others that leave the channels' axis as the last."""
    (before, *_), after = _shapes(equation)
    result: list[Numbers | None] = [None] * len(after)
    rest = [(n, label) for n, label in zip(before, labels[0], strict=True) if n != 1]
    places = [axis for axis, n in enumerate(after) if n != 1]
    if [n for n, _ in rest] == [after[axis] for axis in places]:
        for axis, (_, label) in zip(places, rest, strict=True):
            result[axis] = label
        return tuple(result)
    if before[-1] != after[-1] or any(label is not None for label in labels[0][:-1]):
        raise walk.unknown("reshape")
    result[-1] = labels[0][-1]
    return tuple(result)


def _transpose(walk: _Walk, equation: Any, labels: list[Label]) -> Label:
    return tuple(labels[0][axis] for axis in equation.params["permutation"])


def _without(key: str) -> Rule:
    """Returns the rule of what takes away the axes in a parameter, over which no channels may lie."""

    def rule(walk: _Walk, equation: Any, labels: list[Label]) -> Label:
        gone = equation.params[key]
        if any(labels[0][axis] is not None and equation.invars[0].aval.shape[axis] > 1 for axis in gone):
            raise walk.unknown(equation.primitive.name)
        return tuple(label for axis, label in enumerate(labels[0]) if axis not in gone)

    return rule


def _window(walk: _Walk, equation: Any, labels: list[Label]) -> Label:
    size = equation.params["window_dimensions"]
    if any(label is not None and n > 1 for label, n in zip(labels[0], size, strict=True)):
        raise walk.unknown(equation.primitive.name)
    return labels[0]


def _pad(walk: _Walk, equation: Any, labels: list[Label]) -> Label:
    def padded(label: Numbers | None, padding: tuple[int, int, int]) -> Numbers | None:
        low, high, inside = padding
        if label is None or padding == (0, 0, 0):
            return label
        if inside or low < 0 or high < 0:
            raise walk.unknown("pad")
        return np.concatenate([walk.new(low), label, walk.new(high)])

    return tuple(map(padded, labels[0], equation.params["padding_config"]))


def _slice(walk: _Walk, equation: Any, labels: list[Label]) -> Label:
    p = equation.params
    strides = p["strides"] or (1,) * len(labels[0])
    every = zip(labels[0], p["start_indices"], p["limit_indices"], strides, strict=True)
    return tuple(None if label is None else label[start:limit:stride] for label, start, limit, stride in every)


def _convolution(walk: _Walk, equation: Any, labels: list[Label]) -> Label:
    (_, kernel), output = _shapes(equation)
    images, weights = labels
    numbers, groups = equation.params["dimension_numbers"], equation.params["feature_group_count"]
    channels, features = images[numbers.lhs_spec[1]], weights[numbers.rhs_spec[0]]
    inside = weights[numbers.rhs_spec[1]]
    assert features is not None
    spatial = numbers.rhs_spec[2:]
    places = math.prod(kernel[axis] for axis in spatial) * math.prod(output[axis] for axis in numbers.out_spec[2:])
    if groups == 1:
        inside = walk.tie(channels, inside)
    elif channels is not None and groups == len(channels) == len(features):
        features, inside = walk.tie(channels, features), None
    else:
        walk.fix(channels, features)
    assert features is not None
    walk.products.append(Product(places, features, inside))
    result: list[Numbers | None] = [None] * len(output)
    result[numbers.out_spec[1]] = features
    return tuple(result)


def _product(walk: _Walk, equation: Any, labels: list[Label]) -> Label:
    (contracted, batch), output = equation.params["dimension_numbers"], _shapes(equation)[1]
    if any(batch) or len(contracted[0]) != 1:
        raise walk.unknown("dot_general")
    inside = walk.tie(labels[0][contracted[0][0]], labels[1][contracted[1][0]])
    free = [
        label
        for own, axes in zip(labels, contracted, strict=True)
        for axis, label in enumerate(own)
        if axis not in axes
    ]
    features = free[-1]
    if features is None or inside is None:
        raise walk.unknown("dot_general")
    walk.products.append(Product(math.prod(output[:-1]), features, inside))
    return tuple(free)


_POINTWISE = """
add sub mul div rem max min pow integer_pow square neg abs sign exp exp2 expm1 log log1p tanh logistic erf erfc sqrt
rsqrt cbrt clamp select_n eq ne lt le gt ge and or not is_finite add_any copy stop_gradient convert_element_type
reduce_precision
"""
_RULES: dict[str, Rule] = {
    **dict.fromkeys(_POINTWISE.split(), _place_by_place),
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min", "reduce_prod"), _without("axes")),
    **dict.fromkeys(("reduce_window", "reduce_window_sum", "reduce_window_max", "reduce_window_min"), _window),
    "squeeze": _without("dimensions"),
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "transpose": _transpose,
    "pad": _pad,
    "slice": _slice,
    "conv_general_dilated": _convolution,
    "dot_general": _product,
}


def widths_of(variables: Variables) -> dict[str, int]:
    """Returns the features of each convolution, and of the dense layers inside gates, as a network's `layer_widths`."""
    return {
        "/".join(path[:-1]): x.shape[-1]
        for path, x in flatten_dict(variables["params"]).items()
        if path[-1] == "kernel" and (x.ndim == 4 or path[-2] == "reduce")
    }
