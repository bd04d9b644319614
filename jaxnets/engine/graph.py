"""From a model's JAX program to an ONNX graph, channels first, with its norms folded into its convolutions.

The program is traced with its weights as constants. Whatever depends on constants alone is computed at once
(`constants`); what is left is a short list of operations, the same for every network here (`operations`).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from onnx import ModelProto, TensorProto, helper

from jaxnets.engine.constants import compute
from jaxnets.engine.operations import CONSTANT_STEPS, OPERATIONS, STEPS, Operation
from jaxnets.engine.opset import ask_for_least
from jaxnets.engine.writer import CHANNELS_FIRST, Affine, Equation, Scaled, Tensor, Unwritable, Value, Writer

OPSET = 20  # that nodes are written in; a file asks for the lowest that its own need

_BATCH = 2  # that the program is traced with; the graph's own is free
_INLINED = ("jit", "pjit", "custom_jvp_call", "custom_vjp_call", "closed_call", "remat")


def to_onnx(
    function: Callable[[jax.Array], Any],
    image: tuple[int, int, int],
    dtype: type[np.float32] | type[np.uint8],
    outputs: Sequence[str] = ("logits",),
) -> ModelProto:
    """Returns the ONNX model of `function`, `[b, h, w, c]` → float32 `[b, numbers]`, for any batch.

    The graph's input is "image", float32 `[b, c, h, w]` or uint8 `[b, h, w, c]`; its outputs are called `outputs`.

    Args:
        function: in JAX, with its weights as constants; images do not depend on each other in it.
        image: height, width and channels.
        dtype: of the image.
        outputs: what the result is called; several where the function returns a tuple.

    Raises:
        Unwritable: if the function does what no network here does.
    """
    shape = (_BATCH, *image)
    height, width, channels = image
    program = jax.make_jaxpr(function)(jax.ShapeDtypeStruct(shape, dtype))
    writer = Writer()
    if dtype == np.uint8:  # turned to channels first while it is small
        x = writer.emit("Transpose", ["image"], shape, perm=list(CHANNELS_FIRST))
        taken = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", height, width, channels])
    else:
        x = Tensor("image", shape)
        taken = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", channels, height, width])
    try:
        results = _run(writer, program, [x], "")
        for result in results:
            if len(result.shape) != 2 or result.shape[0] != _BATCH:
                raise Unwritable(f"an output of {result.shape} for {_BATCH} images")
        writer.finish(dict(zip(outputs, results, strict=True)))
    except Unwritable:
        raise
    except Exception as error:  # an operation that is used as no network here uses it may fail in any way
        raise Unwritable(f"{type(error).__name__}: {error}") from error
    given = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", result.shape[1]])
        for name, result in zip(outputs, results, strict=True)
    ]
    graph = helper.make_graph(writer.nodes, "jaxnets", [taken], given, writer.initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="jaxnets")
    return ask_for_least(model)


def _run(writer: Writer, program: ClosedJaxpr, arguments: Sequence[Value], within: str) -> list[Any]:
    """Writes a program that the layer `within` calls; "" is the network itself."""
    jaxpr: Jaxpr = program.jaxpr
    values: dict[Any, Value] = {
        **dict(zip(jaxpr.constvars, [np.asarray(const) for const in program.consts], strict=True)),
        **dict(zip(jaxpr.invars, arguments, strict=True)),
    }

    def read(atom: Any) -> Value:
        return np.asarray(atom.val) if isinstance(atom, Literal) else values[atom]

    uses = Counter(atom for eqn in jaxpr.eqns for atom in eqn.invars if not isinstance(atom, Literal))
    uses.update(atom for atom in jaxpr.outvars if not isinstance(atom, Literal))
    for eqn in jaxpr.eqns:
        writer.layer = layer = _layer(eqn) or within
        for atom in eqn.invars:
            # What is used again has to be written as it is now, before anything is folded into it.
            if not isinstance(atom, Literal) and uses[atom] > 1 and isinstance(values[atom], Affine | Scaled):
                values[atom] = writer.keep(values[atom])
        inputs = [read(atom) for atom in eqn.invars]
        inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
        results: Sequence[Any]
        name, known = str(eqn.params.get("name", "")), all(isinstance(value, np.ndarray) for value in inputs)
        if known and name in CONSTANT_STEPS:
            results = [CONSTANT_STEPS[name](*inputs)]
        elif not known and name in STEPS:
            results = [_apply(writer, eqn, inputs, STEPS[name])]
        elif eqn.primitive.name in _INLINED and inner is not None:
            closed = inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, [])
            results = _run(writer, closed, inputs, layer)
        elif known:
            results = compute(eqn, [np.asarray(value) for value in inputs])
        else:
            results = [_apply(writer, eqn, inputs, OPERATIONS.get(eqn.primitive.name))]
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _apply(writer: Writer, eqn: Any, inputs: list[Value], write: Operation | None) -> Value:
    name = eqn.primitive.name
    if write is None:
        raise Unwritable(f"the operation {name!r}")
    result = eqn.outvars[0].aval
    if result.dtype != np.float32 or len(eqn.outvars) != 1:
        raise Unwritable(f"the operation {name!r} with a result of {result.dtype}")
    dtypes = tuple(np.dtype(atom.aval.dtype) for atom in eqn.invars)
    value = write(writer, Equation(name, eqn.params, inputs, dtypes, tuple(result.shape)))
    return replace(value, layer=value.layer or writer.layer) if isinstance(value, Affine) else value


def _layer(eqn: Any) -> str:
    """Returns the Flax module that an equation comes from, such as "stage1_block1/conv1"; "" for the network itself.

    JAX has "ResNet/ResNet.outputs/stage1_block1/conv1": the network's class comes first, and a method's name, which has
    a dot, in front of what it calls.
    """
    _, *inner = str(eqn.source_info.name_stack).split("/")
    return "/".join(name for name in inner if "." not in name)
