"""A network's program, computed as ONNX Runtime computes it in 8 bits.

The program is that of evaluation. A product or sum per channel that follows a convolution becomes part of its weights,
as when the network is exported (`engine.writer`); what an 8-bit layer takes and gives then lies on a grid:

- the input of each convolution, and of each dense layer that sees places (not the classifier, nor a gate's layers);
- the output of each of these and of each sum of two branches, after the ReLU or the clip that is all that follows.

All else is computed in float32 from numbers on grids: gates, smooth activations, averages, the classifier. Moving and
choosing numbers (slices, padding with zeros, max-pooling) keeps them on their grid.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jaxtyping import Array, Float

from jaxnets.errors import UserError
from jaxnets.models.conv import conv2d
from jaxnets.models.conventions import DIMENSIONS
from jaxnets.models.family import Path
from jaxnets.models.quantised.grid import Grid, grid_of, kernel_and_bias, on_grid
from jaxnets.models.steps import PREFIX

Ranges = dict[Path, Float[Array, " 2"]]  # lowest and highest value of what is in 8 bits, by layer and what of it

_IMAGE = ("image",)  # its place
# With 255, of the 256 values of a pixel each would lie halfway between two numbers where the mean of the training
# images is 0.5, and rounding would be a matter of chance.
_IMAGE_STEPS = 254
_INLINED = frozenset(
    ("jit", "pjit", "custom_jvp_call", "custom_vjp_call", "closed_call", "checkpoint", "remat", "remat2")
)
_SAME = frozenset(("copy", "stop_gradient", "optimization_barrier"))
_MOVES = frozenset(("slice", "gather", "pad", "reshape", "squeeze", "transpose", "reduce_window_max"))


@dataclass(frozen=True)
class Fixed:
    """What depends on no image; `layer` is that of the parameter that it is made of, if it is of one."""

    x: Any
    layer: Path | None = None


@dataclass
class Activation:
    """What depends on the image; it is brought onto its grid when that is first asked for, and stays there."""

    x: Array
    place: Path | None = None  # whose range it has, or will have once it is on a grid
    fresh: bool = True  # the range follows these numbers; they are not others that were moved
    grid: Grid | None = None


@dataclass(frozen=True)
class Affine:
    """A convolution, or a dense layer over places, whose weights may still change."""

    source: Activation
    kernel: Array
    bias: Array | None
    compute: Callable[[Array, Array], Array]
    layer: Path

    @property
    def features(self) -> int:
        return int(self.kernel.shape[-1])


Value = Fixed | Activation | Affine


@dataclass
class Simulation:
    """Computes a program in 8 bits; without `ranges` in float32, to find what of it has a range."""

    ranges: Ranges | None
    decay: float | None = None  # of the ranges, which follow what is seen; None: they stay
    found: Ranges = field(default_factory=dict)  # as they are now
    _layer: Path = ()  # that was written last: sums are called by it
    _named: Counter[Path] = field(default_factory=Counter)

    def __call__(self, program: ClosedJaxpr, paths: Sequence[Path], arguments: Sequence[Any]) -> list[Array]:
        """Returns the program's results.

        Args:
            program: of variables, and of images as the last argument.
            paths: of the variables, their collection first.
            arguments: the variables and the images.
        """
        *variables, images = arguments
        known = [Fixed(x, path[1:-1]) for path, x in zip(paths, variables, strict=True)]
        return [self._plain(result) for result in self._run(program, [*known, Activation(images, _IMAGE)])]

    def _run(self, program: ClosedJaxpr, arguments: Sequence[Value]) -> list[Value]:
        jaxpr: Jaxpr = program.jaxpr
        values: dict[Any, Value] = {
            **{var: Fixed(x) for var, x in zip(jaxpr.constvars, program.consts, strict=True)},
            **dict(zip(jaxpr.invars, arguments, strict=True)),
        }
        uses = Counter(atom for eqn in jaxpr.eqns for atom in eqn.invars if not isinstance(atom, Literal))
        uses.update(atom for atom in jaxpr.outvars if not isinstance(atom, Literal))

        def read(atom: Any) -> Value:
            if isinstance(atom, Literal):
                return Fixed(atom.val)
            value = values[atom]
            if uses[atom] > 1 and not isinstance(value, Fixed):
                value = values[atom] = self._written(value)
                self._plain(value)
            return value

        for eqn in jaxpr.eqns:
            inputs = [read(atom) for atom in eqn.invars]
            inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
            step = str(eqn.params.get("name", "")).startswith(PREFIX)
            results: list[Value]
            if eqn.primitive.name in _INLINED and inner is not None and not step:
                closed = inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, [])
                results = self._run(closed, inputs)
            elif all(isinstance(value, Fixed) for value in inputs):
                layer = next((value.layer for value in inputs if isinstance(value, Fixed) and value.layer), None)
                results = [Fixed(x, layer) for x in _known(eqn, [self._plain(value) for value in inputs])]
            else:
                rule = _RULES.get(eqn.primitive.name)
                result = None if rule is None else rule(self, eqn, inputs)
                if result is None:
                    results = [Activation(x) for x in _bound(eqn, [self._plain(value) for value in inputs])]
                else:
                    results = [result]
            values.update(zip(eqn.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _written(self, value: Value) -> Any:
        """Returns a value whose weights change no more."""
        if not isinstance(value, Affine):
            return value
        self._layer = value.layer
        grid, kernel, bias = value.source.grid, value.kernel, value.bias
        if grid is not None and self.ranges is not None:
            kernel, bias = kernel_and_bias(kernel, bias, grid.scale)
        with jax.named_scope("/".join(value.layer)):
            y = value.compute(value.source.x, kernel)
            y = y if bias is None else y + bias
        return Activation(y, self._place(value.layer, "output"))

    def _place(self, layer: Path, what: str) -> Path:
        """Returns a name that nothing else has."""
        self._named[*layer, what] += 1
        number = self._named[*layer, what]
        return (*layer, what if number == 1 else f"{what}{number}")

    def _plain(self, value: Value) -> Any:
        """Returns the numbers that an operation in float32 sees: on a grid, where they have one."""
        written = self._written(value)
        if isinstance(written, Activation) and written.place is not None:
            written = self._on_grid(written)
        return written.x

    def _on_grid(self, value: Value, layer: Path = (), what: str = "input") -> Activation:
        """Returns an activation that is on a grid; where it has no place yet, it is called by what a layer takes."""
        own: Activation = self._written(value)
        if own.grid is not None:
            return own
        own.place = own.place or self._place(layer, what)
        if self.ranges is None:
            self.found.setdefault(own.place, jnp.zeros(2))
            own.grid = grid_of(self.found[own.place])
            return own
        if own.place not in self.found:
            if own.place not in self.ranges:
                raise UserError(
                    f"these weights have no range of {'/'.join(own.place)}, which this version of jaxnets computes in "
                    f"8 bits: another version made them. Take the run that they came from to 8 bits anew (python -m "
                    f"jaxnets.compress --method qat)"
                )
            self.found[own.place] = self.ranges[own.place]
            if self.decay is not None and own.fresh:
                x = jax.lax.stop_gradient(own.x)
                seen = jnp.stack([x.min(), x.max()])
                self.found[own.place] = self.decay * self.ranges[own.place] + (1 - self.decay) * seen
        own.grid = grid_of(self.found[own.place], _IMAGE_STEPS if own.place == _IMAGE else 255)
        own.x = on_grid(own.x, *own.grid)
        return own

    def _convolution(self, eqn: Any, inputs: list[Value]) -> Value | None:
        x, kernel = inputs
        p = eqn.params
        if not isinstance(kernel, Fixed) or kernel.layer is None or p["dimension_numbers"] != _LAYOUT:
            return None
        if {*p["lhs_dilation"], *p["rhs_dilation"], p["batch_group_count"]} != {1}:
            return None
        geometry: dict[str, Any] = {
            "stride": tuple(p["window_strides"]),
            "padding": tuple(p["padding"]),
            "groups": p["feature_group_count"],
        }
        source = self._on_grid(x, kernel.layer)
        return Affine(source, kernel.x, None, lambda x, kernel: conv2d(x, kernel, **geometry), kernel.layer)

    def _product(self, eqn: Any, inputs: list[Value]) -> Value | None:
        """Of a dense layer that sees places: rows and columns, or tokens."""
        x, kernel = inputs
        (left, right), (batched, _) = eqn.params["dimension_numbers"]
        rank = len(eqn.invars[0].aval.shape)
        if isinstance(x, Fixed) or not isinstance(kernel, Fixed) or len(eqn.invars[1].aval.shape) != 2:
            return None
        if rank < 3 or kernel.layer is None or tuple(batched) or tuple(left) != (rank - 1,) or tuple(right) != (0,):
            return None
        source = self._on_grid(x, kernel.layer)
        return Affine(source, kernel.x, None, lambda x, kernel: _bound(eqn, [x, kernel])[0], kernel.layer)

    def _arithmetic(self, eqn: Any, inputs: list[Value]) -> Value | None:
        """A sum or product per channel becomes part of the weights before it; a sum of two branches has a grid."""
        name = eqn.primitive.name
        left, right = inputs
        if isinstance(left, Fixed) and name in ("add", "add_any", "mul"):
            left, right = right, left
        if isinstance(left, Affine) and isinstance(right, Fixed):
            shape = np.shape(right.x)
            if (np.size(right.x), *shape[-1:]) != (left.features, left.features) and np.size(right.x) != 1:
                return None
            vector = jnp.broadcast_to(jnp.reshape(right.x, -1), (left.features,))
            if name in ("mul", "div"):
                gain = vector if name == "mul" else 1 / vector
                return replace(left, kernel=left.kernel * gain, bias=None if left.bias is None else left.bias * gain)
            shift = -vector if name == "sub" else vector
            return replace(left, bias=shift if left.bias is None else left.bias + shift)
        if name not in ("add", "add_any") or isinstance(left, Fixed) or isinstance(right, Fixed):
            return None
        if len(eqn.outvars[0].aval.shape) < 3:
            return None
        a, b = (self._written(value) for value in (left, right))
        layer = self._layer
        a, b = (self._on_grid(value, layer, side) for value, side in ((a, "left"), (b, "right")))
        return Activation(a.x + b.x, self._place(layer, "sum"))

    def _bounded(self, eqn: Any, inputs: list[Value]) -> Value | None:
        """ReLU, and the upper end of a clip, of what is not on its grid yet: the grid's own ends do the same."""
        x, bound = inputs
        if isinstance(x, Fixed):
            x, bound = bound, x
        if not isinstance(bound, Fixed) or np.size(bound.x) != 1 or isinstance(x, Fixed):
            return None
        x = self._written(x)
        assert isinstance(x, Activation)
        if x.grid is not None or x.place is None:
            return None
        if eqn.primitive.name == "max" and _is_zero(bound):
            return replace(x, x=jax.nn.relu(x.x))
        limit = jnp.reshape(bound.x, ())
        return replace(x, x=(jnp.maximum if eqn.primitive.name == "max" else jnp.minimum)(x.x, limit))

    def _moved(self, eqn: Any, inputs: list[Value]) -> Value | None:
        """What moves or chooses numbers leaves them on their grid."""
        x, *others = inputs
        if isinstance(x, Fixed) or not all(isinstance(other, Fixed) for other in others):
            return None
        if eqn.primitive.name == "pad" and not _is_zero(inputs[1]):
            return None
        x = self._written(x)
        assert isinstance(x, Activation)
        (y,) = _bound(eqn, [self._plain(x), *(self._plain(other) for other in others)])
        return Activation(y, x.place, fresh=False)

    def _same(self, eqn: Any, inputs: list[Value]) -> Value | None:
        return inputs[0] if len(inputs) == 1 else None

    def _converted(self, eqn: Any, inputs: list[Value]) -> Value | None:
        return inputs[0] if eqn.invars[0].aval.dtype == eqn.outvars[0].aval.dtype else None


_LAYOUT = jax.lax.conv_dimension_numbers((1, 1, 1, 1), (1, 1, 1, 1), DIMENSIONS)
_RULES: dict[str, Callable[[Simulation, Any, list[Value]], Value | None]] = {
    "conv_general_dilated": Simulation._convolution,
    "dot_general": Simulation._product,
    "convert_element_type": Simulation._converted,
    **dict.fromkeys(("add", "add_any", "sub", "mul", "div"), Simulation._arithmetic),
    **dict.fromkeys(("max", "min"), Simulation._bounded),
    **dict.fromkeys(_MOVES, Simulation._moved),
    **dict.fromkeys(_SAME, Simulation._same),
}


def _bound(eqn: Any, inputs: Sequence[Any]) -> list[Any]:
    """Returns an equation's results for other inputs."""
    results = eqn.primitive.bind(*inputs, **eqn.params)
    return list(results) if eqn.primitive.multiple_results else [results]


def _known(eqn: Any, inputs: Sequence[Any]) -> list[Any]:
    """Returns an equation's results where none depends on the image; plain numbers stay plain."""
    if any(isinstance(x, jax.core.Tracer) or np.size(x) > 1 for x in inputs):
        return _bound(eqn, inputs)
    with jax.ensure_compile_time_eval():
        return [np.asarray(x) for x in _bound(eqn, inputs)]


def _is_zero(value: Value) -> bool:
    return isinstance(value, Fixed) and not isinstance(value.x, jax.core.Tracer) and not np.any(value.x)
