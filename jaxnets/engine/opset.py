"""The versions that an ONNX file asks of its reader: the lowest that its nodes need.

A runtime refuses a file for an import that it does not know, whether a node uses it or not.
"""

from collections.abc import Iterator
from typing import Any

from onnx import AttributeProto, ModelProto, defs, helper

LOWEST = 13  # before it some nodes mean another thing (Softmax's axis) or lack what int8 needs (a scale per channel)


def ask_for_least(model: ModelProto) -> ModelProto:
    """Returns the model with the imports that its nodes use and no others, in the lowest versions that have them."""
    nodes = list(_nodes(model.graph))
    for function in model.functions:
        nodes += list(function.node)
    written = {_domain(entry.domain): entry.version for entry in model.opset_import}
    needed = {_domain(node.domain): written[_domain(node.domain)] for node in nodes}
    own = [node for node in nodes if not _domain(node.domain)]
    if own and written[""] > LOWEST:
        candidates = range(LOWEST, written[""])
        needed[""] = next((n for n in candidates if all(_has(node, n) for node in own)), written[""])
    imports = [helper.make_opsetid(domain, version) for domain, version in sorted(needed.items())]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    # A domain that is no part of ONNX says nothing of the file's format.
    model.ir_version = helper.find_min_ir_version_for([entry for entry in imports if not entry.domain])
    return model


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _nodes(attribute.g)
            for inner in attribute.graphs:
                yield from _nodes(inner)


def _has(node: Any, opset: int) -> bool:
    """Tells whether a version of ONNX has a node with such attributes and so many inputs."""
    try:
        schema = defs.get_schema(node.op_type, opset, "")
    except defs.SchemaError:
        return False
    attributes = {attribute.name for attribute in node.attribute}
    return attributes <= set(schema.attributes) and len(node.input) <= schema.max_input
