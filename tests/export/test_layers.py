"""Which layers int8 takes, what each costs, and that those which are kept are kept."""

from functools import cache

import numpy as np
import pytest

from jaxnets import UserError
from jaxnets.export.layers import Cost, Kept, costs, layers_of, nodes_of, read_kept, table
from tests.tiny import SEEN, classifier

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from jaxnets.export.int8 import Quantisable, calibrate, of_all, quantisable, quantise  # noqa: E402
from jaxnets.export.onnx_export import channels_first, export_onnx, onnx_logits  # noqa: E402

IMAGES = np.random.default_rng(0).integers(0, 256, (8, SEEN.height, SEEN.width, 3), np.uint8)
LITE = classifier("lite")


@cache
def content() -> bytes:
    return export_onnx(LITE, normalised_inside=False)


@cache
def graph() -> Quantisable:
    return quantisable(content())


@cache
def ranges() -> object:
    return calibrate(graph(), LITE, IMAGES)


def test_layers_are_those_of_the_network_with_the_clip_that_bounds_them():
    assert graph().layers["stem_conv"] == ("stem_conv/Conv", "Clip")
    assert graph().layers["stage3_block1/project_conv"] == ("stage3_block1/project_conv/Conv",)
    assert "head" not in graph().layers
    tokens = quantisable(export_onnx(classifier("vit"), normalised_inside=False))
    assert len(tokens.layers["stage1_block1/attention/qkv"]) == 3  # a product for each of the three
    assert not any("attend" in layer for layer in tokens.layers)


def test_a_layer_costs_more_the_fewer_values_it_can_take(monkeypatch):
    found = costs(graph(), ranges(), LITE, onnx_logits(content(), LITE), IMAGES)
    assert {cost.layer for cost in found} == set(graph().layers)
    errors = [cost.error for cost in found]
    assert errors == sorted(errors, reverse=True)
    assert 0 < errors[-1] <= errors[0] < 0.3
    wide = ranges()
    name = onnx_node(content(), found[-1].layer).output[0]
    clip = next((n.output[0] for n in graph().model.graph.node if name in n.input and n.op_type == "Clip"), name)
    kept = wide.data[clip]
    try:
        low, high = kept.range_value
        wide.data[clip] = type(kept)(lowest=np.float32(low), highest=np.float32(50 * high))
        worse = {cost.layer: cost.error for cost in costs(graph(), wide, LITE, onnx_logits(content(), LITE), IMAGES)}
    finally:
        wide.data[clip] = kept
    assert worse[found[-1].layer] > 3 * errors[-1]


def onnx_node(file: bytes, layer: str):
    return next(node for node in onnx.load_from_string(file).graph.node if node.name == f"{layer}/Conv")


def test_what_is_kept_is_float32_also_when_onnx_runtime_has_opened_the_file(tmp_path):
    layer = "stage3_block1/depthwise_conv"
    made = quantise(graph(), ranges(), kept=graph().layers[layer])
    onnx.checker.check_model(onnx.load_from_string(made), full_check=True)
    found = {}
    for name, level in (("as written", "ORT_DISABLE_ALL"), ("opened", "ORT_ENABLE_BASIC")):
        options = ort.SessionOptions()
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
        options.optimized_model_filepath = str(tmp_path / f"{level}.onnx")
        session = ort.InferenceSession(made, options, providers=["CPUExecutionProvider"])
        found[name] = session.run(None, {"image": channels_first(LITE, IMAGES)})[0]
        nodes = onnx.load(tmp_path / f"{level}.onnx").graph
        conv = next(node for node in nodes.node if node.name == f"{layer}/Conv")
        assert conv.input[1] in {constant.name for constant in nodes.initializer}  # and not a DequantizeLinear's
    np.testing.assert_allclose(found["opened"], found["as written"], rtol=1e-3, atol=1e-3)


def test_names_of_layers_and_of_blocks_are_understood():
    assert read_kept(["3"]) == Kept(most=3)
    assert read_kept(["stem_conv, stage1_block1/", "top_conv"]) == Kept(("stem_conv", "stage1_block1", "top_conv"))
    kept = read_kept(["stage3_block1"])
    block = layers_of(graph(), kept)
    assert block == [f"stage3_block1/{name}_conv" for name in ("expand", "depthwise", "project")]
    assert "stage3_block1/squeeze/GlobalAveragePool" in nodes_of(graph(), kept, block)
    assert not any(node.startswith("stage3_block2") for node in nodes_of(graph(), kept, block))


@pytest.mark.parametrize("given", ["0", "-1", "1.5", "2,stem_conv", "", "stem_conv,,top_conv"])
def test_what_is_neither_names_nor_a_number_is_refused(given):
    with pytest.raises(UserError, match="--keep-float"):
        read_kept([given])


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (Kept(("stem_conf",)), r"did you mean 'stem_conv'\?.* those in 8 bits are stem_conv, stage1"),
        (Kept(("stage3_blok1",)), "did you mean 'stage3_block1'"),
        (Kept(("head",)), "leaves it in float32 in any case"),
        (Kept(most=1000), "none of the network's 14 layers"),
    ],
)
def test_layers_that_cannot_be_kept_are_refused(kept, said):
    with pytest.raises(UserError, match=said):
        layers_of(graph(), kept)


def test_the_table_shows_ten_layers_and_what_the_others_come_to():
    lines = table([Cost(f"layer{i}", 0.5 / (i + 1), 12 - i) for i in range(12)], 64).split("\n")
    assert lines[0] == "what a layer costs that alone is in 8 bits, on 64 images:"
    assert lines[2].split() == ["50.00%", "12", "layer0"]
    assert lines[-1] == "2 more layers with 4.55% or less, and 2 or fewer answers changed by each"
    assert len(lines) == 13


def test_int8_without_anything_kept_agrees_with_float32_nearly():
    logits = of_all(onnx_logits(quantise(graph(), ranges()), LITE), IMAGES)
    exact = of_all(onnx_logits(content(), LITE), IMAGES)
    assert np.abs(logits - exact).max() < 0.2 * np.abs(exact).max()
