"""Multi-head attention as ONNX nodes."""

from dataclasses import replace

import numpy as np

from jaxnets.engine.writer import Affine, Equation, Tensor, Unwritable, Writer


def attention(writer: Writer, equation: Equation) -> Tensor:
    """Writes `models.attention`'s one step, of queries, keys and values `[b, n, 3 c]` side by side.

    Where they come from a dense layer that is not written yet, each of the three becomes a layer of its own: the graph
    then splits weights once, and not activations for every image. The scores' scale goes into the queries' weights.
    """
    qkv, (_, n, c) = equation.first, equation.shape
    heads = _heads(equation)
    turned = {"q": [0, 2, 1, 3], "k": [0, 2, 3, 1], "v": [0, 2, 1, 3]}
    parts: dict[str, str] = {}
    for number, (name, order) in enumerate(turned.items()):
        which = slice(number * c, (number + 1) * c)
        if isinstance(qkv, Affine):
            bias = None if qkv.bias is None else qkv.bias[which]
            own = replace(qkv, weight=qkv.weight[which], bias=bias, shape=equation.shape)
            part = writer.write(own.scaled(_scale(c, heads)) if name == "q" else own)
        else:
            bounds = [writer.integers([number]) for number in (which.start, which.stop, 2)]
            part = writer.emit("Slice", [writer.write(qkv).name, *bounds], equation.shape)
            if name == "q":
                part = writer.emit("Mul", [part.name, writer.scalar(_scale(c, heads)[0])], part.shape)
        apart = writer.emit("Reshape", [part.name, writer.integers([0, n, heads, c // heads])], (0, n, heads, 0))
        parts[name] = writer.emit("Transpose", [apart.name], (), perm=order).name
    scores = writer.emit("MatMul", [parts["q"], parts["k"]], ())
    weights = writer.emit("Softmax", [scores.name], (), axis=-1)
    taken = writer.emit("MatMul", [weights.name, parts["v"]], ())
    back = writer.emit("Transpose", [taken.name], (), perm=[0, 2, 1, 3])
    return writer.emit("Reshape", [back.name, writer.integers([0, n, c])], equation.shape)


def _scale(c: int, heads: int) -> np.ndarray:
    return np.full(c, (c // heads) ** -0.5, np.float32)


def _heads(equation: Equation) -> int:
    """Returns the number of heads, which the step parts its argument into first: `[b, n, 3, heads, d]`."""
    for inner in equation.params["jaxpr"].eqns:
        if inner.primitive.name == "reshape":
            return int(inner.outvars[0].aval.shape[3])
    raise Unwritable("an attention that does not part its heads")
