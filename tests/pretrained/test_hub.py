import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants

from jaxnets.errors import UserError
from jaxnets.preprocess import Preprocess
from jaxnets.pretrained.hub import fetch
from jaxnets.pretrained.hub_config import Recognised, activation, labels, network, preprocess
from jaxnets.pretrained.imagenet import class_names

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

# As the libraries write them, less what nothing here reads.
TIMM_RESNET50 = {
    "architecture": "resnet50",
    "num_classes": 1000,
    "num_features": 2048,
    "global_pool": "avg",
    "model_args": {"in_chans": 3, "num_classes": 1000, "global_pool": "avg"},
    "pretrained_cfg": {
        "tag": "a1_in1k",
        "input_size": [3, 224, 224],
        "test_input_size": [3, 288, 288],
        "fixed_input_size": False,
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "test_crop_pct": 1.0,
        "crop_mode": "center",
        "mean": MEAN,
        "std": STD,
        "num_classes": 1000,
    },
}
RESNET50 = {
    "depths": [3, 4, 6, 3],
    "downsample_in_bottleneck": False,
    "downsample_in_first_stage": False,
    "embedding_size": 64,
    "hidden_act": "relu",
    "hidden_sizes": [256, 512, 1024, 2048],
    "layer_type": "bottleneck",
    "model_type": "resnet",
    "num_channels": 3,
}
CONVNEXT_PROCESSOR = {
    "crop_pct": 0.875,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": MEAN,
    "image_processor_type": "ConvNextImageProcessor",
    "image_std": STD,
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 224},
}
EFFICIENTNET_B0 = {
    "batch_norm_eps": 0.001,
    "depth_coefficient": 1.0,
    "depth_divisor": 8,
    "depthwise_padding": [],
    "expand_ratios": [1, 6, 6, 6, 6, 6, 6],
    "hidden_act": "swish",
    "image_size": 224,
    "in_channels": [32, 16, 24, 40, 80, 112, 192],
    "kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
    "model_type": "efficientnet",
    "num_block_repeats": [1, 2, 2, 3, 3, 4, 1],
    "num_channels": 3,
    "out_channels": [16, 24, 40, 80, 112, 192, 320],
    "pooling_type": "mean",
    "squeeze_expansion_ratio": 0.25,
    "strides": [1, 2, 2, 2, 1, 2, 1],
    "width_coefficient": 1.0,
}
EFFICIENTNET_PROCESSOR = {
    "crop_size": {"height": 289, "width": 289},
    "do_center_crop": False,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": MEAN,
    "image_processor_type": "EfficientNetImageProcessor",
    "image_std": [0.47853944, 0.4732864, 0.47434163],
    "include_top": True,
    "resample": 0,
    "rescale_factor": 0.00392156862745098,
    "rescale_offset": False,
    "size": {"height": 224, "width": 224},
}


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of huggingface_hub, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def store(cache: Path, name: str, files: dict[str, bytes], revision: str = "main") -> Path:
    """Lays a repository into the cache, as huggingface_hub would."""
    folder = cache / f"models--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / revision).write_text(COMMIT)
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for file, content in files.items():
        (snapshot / file).write_bytes(content)
    return snapshot


def test_a_cached_repository_is_read_without_a_network(cache, caplog):
    files = {
        "config.json": json.dumps(RESNET50).encode(),
        "preprocessor_config.json": json.dumps(CONVNEXT_PROCESSOR).encode(),
        "model.safetensors": b"weights",
    }
    snapshot = store(cache, "microsoft/resnet-50", files)
    with caplog.at_level(logging.WARNING):
        found = fetch("hf:microsoft/resnet-50")
    assert found.weights == snapshot / "model.safetensors"
    assert found.config == RESNET50
    assert found.preprocessor == CONVNEXT_PROCESSOR
    assert not caplog.records, "who asks for the cache needs no warning that it is used"


def test_safetensors_come_before_pickles(cache):
    store(cache, "a/b", {"pytorch_model.bin": b"", "model.safetensors": b""})
    assert fetch("a/b").weights.name == "model.safetensors"


def test_pickles_are_taken_where_there_is_nothing_else(cache):
    store(cache, "a/b", {"pytorch_model.bin": b""})
    found = fetch("hf:a/b")
    assert (found.weights.name, found.config, found.preprocessor) == ("pytorch_model.bin", {}, {})


@pytest.mark.parametrize("revision", ["v1", COMMIT])
def test_a_revision_is_found_by_its_name_and_by_its_commit(cache, revision):
    store(cache, "a/b", {"model.safetensors": b""}, revision="v1")
    assert fetch(f"hf:a/b@{revision}").weights.parent.name == COMMIT


def test_another_revision_than_the_cached_one_is_not_taken_for_it(cache):
    store(cache, "a/b", {"model.safetensors": b""})
    with pytest.raises(UserError, match=r"hf:a/b is not in the cache .*HF_HUB_OFFLINE.*give that folder"):
        fetch("hf:a/b@other")


@pytest.mark.parametrize(
    "name", ["resnet50", "hf:", "hf:a/b/c", "a/../b", "../b", "a/b@../c", "a/b@", "a b/c", "a--b/c", "a/b.", "a/b@/etc"]
)
def test_malformed_names_are_refused(cache, name):
    with pytest.raises(UserError, match="a repository is hf:OWNER/REPO"):
        fetch(name)


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b"[" * 100_000], ids=["cut", "list", "bytes", "deep"])
def test_damaged_configuration_is_named(cache, content):
    store(cache, "a/b", {"model.safetensors": b"", "config.json": content})
    with pytest.raises(UserError, match=r"config\.json"):
        fetch("hf:a/b")


@dataclass
class Hub:
    """What a server that answers as the Hub does holds, and which paths it was asked for."""

    files: dict[str, bytes] = field(default_factory=dict)
    status: int = 200  # of every answer
    error: str = ""  # its X-Error-Code
    gated: bool = False  # the files alone are refused
    asked: list[str] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def hub() -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            state.asked.append(f"{self.command} {self.path}")
            content, headers = b"", {}
            status, error = state.status, state.error
            if self.path.startswith("/api/models/OWNER/REPO/revision/"):
                content = json.dumps(
                    {"id": "OWNER/REPO", "sha": COMMIT, "siblings": [{"rfilename": file} for file in state.files]}
                ).encode()
            elif state.gated:
                status, error = 401, "GatedRepo"
            else:
                content = state.files[self.path.rsplit("/", 1)[1]]
                headers = {"ETag": f'"{sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
            self.send_response(status)
            for key, value in {**headers, "X-Error-Code": error, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_GET = do_HEAD

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield state
    server.shutdown()
    server.server_close()


def fetch_elsewhere(name: str, cache: Path, endpoint: str) -> subprocess.CompletedProcess[str]:
    """Fetches in a process of its own: huggingface_hub reads the environment when it is imported."""
    code = (
        "import sys\n"
        "from jaxnets.errors import UserError\n"
        "from jaxnets.pretrained.hub import fetch\n"
        "try:\n"
        "    found = fetch(sys.argv[1])\n"
        "except UserError as error:\n"
        "    sys.exit(str(error))\n"
        "print(found.weights, found.weights.read_text(), dict(found.config), dict(found.preprocessor), sep='\\n')"
    )
    settings = {"HF_ENDPOINT": endpoint, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
    return subprocess.run(
        [sys.executable, "-c", code, name], env=os.environ | settings, capture_output=True, text=True, timeout=60
    )


FILES = {"config.json": b'{"a": 1}', "model.safetensors": b"weights", "pytorch_model.bin": b"-", "README.md": b"-"}


def test_what_is_needed_is_downloaded_and_nothing_else(hub, tmp_path):
    hub.files = FILES
    done = fetch_elsewhere("hf:OWNER/REPO", tmp_path, hub.url)
    path, content, config, preprocessor = done.stdout.splitlines()
    assert Path(path) == tmp_path / "models--OWNER--REPO" / "snapshots" / COMMIT / "model.safetensors"
    assert (content, config, preprocessor) == ("weights", "{'a': 1}", "{}")
    read = {line.rsplit("/", 1)[1] for line in hub.asked if line.startswith("GET") and "/resolve/" in line}
    assert read == {"model.safetensors", "config.json"}


def test_without_a_network_the_cache_is_used_and_says_so(hub, tmp_path):
    hub.files = FILES
    fetch_elsewhere("hf:OWNER/REPO", tmp_path, hub.url)
    done = fetch_elsewhere("hf:OWNER/REPO", tmp_path, "http://127.0.0.1:1")
    assert done.stdout.splitlines()[1] == "weights"
    assert f"from the cache (commit {COMMIT})" in done.stderr


def test_a_commit_that_is_cached_is_not_asked_for(hub, tmp_path):
    hub.files = FILES
    fetch_elsewhere(f"hf:OWNER/REPO@{COMMIT}", tmp_path, hub.url)
    hub.asked.clear()
    assert fetch_elsewhere(f"hf:OWNER/REPO@{COMMIT}", tmp_path, hub.url).stdout.splitlines()[1] == "weights"
    assert not hub.asked


def test_without_a_network_and_a_cache_the_way_out_is_named(tmp_path):
    done = fetch_elsewhere("hf:OWNER/REPO", tmp_path, "http://127.0.0.1:1")
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
    assert "hf download OWNER/REPO" in done.stderr
    assert "Retrying" not in done.stderr


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"status": 401, "error": "RepoNotFound"}, "check the name, or set HF_TOKEN"),
        ({"status": 404, "error": "RevisionNotFound"}, "has no revision main"),
        ({"gated": True}, "is gated: accept its terms there, and set HF_TOKEN"),
        ({"status": 503}, "HTTP status 503): try again later"),
        ({"files": {"README.md": b"", "tf_model.h5": b""}}, "it holds README.md, tf_model.h5"),
    ],
    ids=["missing", "revision", "gated", "server", "no weights"],
)
def test_what_the_hub_refuses_is_explained(hub, tmp_path, state, message):
    hub.files = FILES
    vars(hub).update(state)
    done = fetch_elsewhere("hf:OWNER/REPO", tmp_path, hub.url)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_timm_names_its_architecture():
    assert network(TIMM_RESNET50) == Recognised(name="resnet50")


@pytest.mark.parametrize(
    ("key", "value"),
    [("global_pool", "max"), ("global_pool", ""), ("global_pool", "catavgmax"), ("output_stride", 16),
     ("act_layer", "silu"), ("norm_layer", "groupnorm"), ("aa_layer", "blurpool"), ("features_only", True),
     ("stem_type", "deep"), ("block_args", {"attn_layer": "se"}), ("cardinality", 32), ("something_new", 1)],
)  # fmt: skip
def test_a_network_that_timm_changed_is_refused_by_the_key(key, value):
    with pytest.raises(UserError, match=f"with {key} .* another network"):
        network({**TIMM_RESNET50, "model_args": {key: value}})


def test_a_pool_that_only_the_head_of_timms_configuration_names_is_refused():
    with pytest.raises(UserError, match="global_pool 'avgmax'"):
        network({**TIMM_RESNET50, "global_pool": "avgmax", "model_args": None})


@pytest.mark.parametrize(
    "arguments",
    [None, {}, {"drop_path_rate": 0.1, "in_chans": 1, "num_classes": 3}, {"output_stride": 32}, {"act_layer": None}],
)
def test_what_changes_no_answer_of_timms_networks_is_passed_over(arguments):
    assert network({**TIMM_RESNET50, "model_args": arguments}) == Recognised(name="resnet50")


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        ({"bn_eps": 1e-3}, {"norm_epsilon": 1e-3}),
        ({"pad_type": "same"}, {"padding": "same"}),
        ({"act_layer": "swish"}, {"activation": "silu"}),
        ({"act_layer": "relu6"}, {"activation": "relu6"}),
    ],
)
def test_what_is_a_field_here_is_set(arguments, fields):
    config = {"architecture": "efficientnet_b0", "model_args": arguments}
    assert network(config) == Recognised(name="efficientnet_b0", fields=fields)


def test_a_resnet_has_an_epsilon_and_no_padding():
    assert network({"architecture": "resnet18", "model_args": {"bn_eps": 1e-3}}).fields == {"norm_epsilon": 1e-3}
    with pytest.raises(UserError, match="pad_type 'same'"):
        network({"architecture": "resnet18", "model_args": {"pad_type": "same"}})


@pytest.mark.parametrize(
    ("problem", "expected"),
    [(None, "softmax"), ("single_label_classification", "softmax"), ("multi_label_classification", "sigmoid"),
     ("regression", None)],
)  # fmt: skip
def test_the_kind_of_problem_says_what_the_outputs_mean(problem, expected):
    assert activation({**RESNET50, "problem_type": problem}) == expected


def test_an_unknown_kind_of_problem_is_refused():
    with pytest.raises(UserError, match="problem_type 'ranking'"):
        activation({**RESNET50, "problem_type": "ranking"})


def test_quantised_weights_are_refused():
    with pytest.raises(UserError, match="quantization_config"):
        network({**RESNET50, "quantization_config": {"quant_method": "bitsandbytes"}})


@pytest.mark.parametrize(
    ("name", "layer", "depths"),
    [
        ("resnet18", "basic", [2, 2, 2, 2]),
        ("resnet34", "basic", [3, 4, 6, 3]),
        ("resnet50", "bottleneck", [3, 4, 6, 3]),
        ("resnet101", "bottleneck", [3, 4, 23, 3]),
        ("resnet152", "bottleneck", [3, 8, 36, 3]),
    ],
)
def test_resnets_are_recognised_by_their_depths(name, layer, depths):
    widths = [64, 128, 256, 512] if layer == "basic" else [256, 512, 1024, 2048]
    config = {**RESNET50, "layer_type": layer, "depths": depths, "hidden_sizes": widths}
    assert network(config) == Recognised(name=name)


def test_other_depths_are_refused():
    with pytest.raises(UserError, match="resnet of other depths"):
        network({**RESNET50, "depths": [2, 2, 2, 2]})


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "gelu"},
        {"embedding_size": 32},
        {"downsample_in_bottleneck": True},
        {"downsample_in_first_stage": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_resnets_that_compute_something_else_are_refused_by_the_key(change):
    (key,) = change
    with pytest.raises(UserError, match=f"has {key} "):
        network({**RESNET50, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "gelu"},
        {"batch_norm_eps": 1e-5},
        {"pooling_type": "max"},
        {"depth_divisor": 4},
        {"squeeze_expansion_ratio": 0.5},
        {"expand_ratios": [1, 4, 4, 4, 4, 4, 4]},
        {"depthwise_padding": [1]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_efficientnets_that_compute_something_else_are_refused_by_the_key(change):
    (key,) = change
    with pytest.raises(UserError, match=f"has {key} "):
        network({**EFFICIENTNET_B0, **change})


@pytest.mark.parametrize(
    ("name", "width", "depth", "pixels", "both_sides"),
    [
        ("tf_efficientnet_b0", 1.0, 1.0, 224, []),
        ("tf_efficientnet_b1", 1.0, 1.1, 240, [16]),
        ("tf_efficientnet_b2", 1.1, 1.2, 260, [5, 8, 16]),
        ("tf_efficientnet_b3", 1.2, 1.4, 300, [5, 18]),
        ("tf_efficientnet_b7", 2.0, 3.1, 600, [18]),
    ],
)
def test_efficientnets_are_recognised_by_their_scales_and_padding(name, width, depth, pixels, both_sides):
    scaled = {
        "width_coefficient": width,
        "depth_coefficient": depth,
        "image_size": pixels,
        "depthwise_padding": both_sides,
    }
    assert network({**EFFICIENTNET_B0, **scaled}) == Recognised(name=name)


def test_an_efficientnet_of_other_scales_is_refused():
    with pytest.raises(UserError, match="efficientnet of other depths or widths"):
        network({**EFFICIENTNET_B0, "depth_coefficient": 1.2})


@pytest.mark.parametrize("config", [{}, {"_class_name": "UNet"}, {"format": 1, "model": {"name": "resnet18"}}])
def test_what_describes_no_model_has_no_name(config):
    assert network(config) is None


def test_a_model_of_another_type_is_refused():
    with pytest.raises(UserError, match="of the type vit; known are efficientnet, resnet"):
        network({"model_type": "vit"})


def test_a_thousand_classes_without_names_are_imagenets():
    assert labels(TIMM_RESNET50) == class_names()


def test_other_numbers_of_classes_have_no_names():
    assert labels({**TIMM_RESNET50, "num_classes": 21843}) is None


def test_labels_are_in_the_order_of_their_numbers():
    names = {str(i): f"name {i}" for i in reversed(range(12))}
    assert labels({**RESNET50, "id2label": names}) == tuple(f"name {i}" for i in range(12))


def test_timms_labels_are_described_where_they_can_be():
    named = {"label_names": ["n1", "n2"], "label_descriptions": {"n1": "a thing"}, "num_classes": 2}
    assert labels({**TIMM_RESNET50, **named}) == ("a thing", "n2")


def test_labels_with_gaps_are_refused():
    with pytest.raises(UserError, match="not numbered 0 to 1"):
        labels({"id2label": {"0": "a", "2": "b"}})


def test_timms_preprocessing_is_that_of_the_training():
    assert preprocess(TIMM_RESNET50, {}) == Preprocess(
        height=224,
        width=224,
        channels=3,
        mean=tuple(MEAN),
        std=tuple(STD),
        crop_fraction=0.95,
        interpolation="bicubic",
    )


def test_timms_older_files_have_one_level():
    found = preprocess({"architecture": "resnet18", "input_size": [3, 128, 160], "crop_pct": 0.9}, {})
    assert (found.height, found.width, found.crop_fraction, found.interpolation) == (128, 160, 0.9, "bicubic")


def test_the_older_files_of_resnets_are_read_as_the_newer():
    older = {key: CONVNEXT_PROCESSOR[key] for key in ("crop_pct", "image_mean", "image_std", "resample")}
    older |= {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 224}
    found = preprocess(RESNET50, older)
    assert found == preprocess(RESNET50, CONVNEXT_PROCESSOR)
    assert (found.height, found.crop_fraction, found.interpolation) == (224, 0.875, "bicubic")
    np.testing.assert_allclose((found.mean, found.std), (MEAN, STD), rtol=1e-12)


def test_large_images_of_resnets_are_squeezed_and_not_cropped():
    found = preprocess(RESNET50, {**CONVNEXT_PROCESSOR, "size": {"shortest_edge": 384}})
    assert (found.height, found.crop_fraction, found.fitting) == (384, 1.0, "squeeze")


def test_efficientnets_images_are_squeezed_and_divided_twice():
    found = preprocess(EFFICIENTNET_B0, EFFICIENTNET_PROCESSOR)
    assert (found.height, found.width, found.crop_fraction) == (224, 224, 1.0)
    assert (found.interpolation, found.fitting) == ("nearest", "squeeze")
    np.testing.assert_allclose(found.mean, MEAN, rtol=1e-12)
    np.testing.assert_allclose(found.std, STD, rtol=1e-6)


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize(("factor", "offset"), [(1 / 255, False), (1 / 127.5, True)])
def test_efficientnets_arithmetic_is_transformers(factor, offset, normalised, twice):
    processor = {
        **EFFICIENTNET_PROCESSOR,
        "do_normalize": normalised,
        "include_top": twice,
        "rescale_factor": factor,
        "rescale_offset": offset,
    }
    pixels = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3), np.uint8)
    deviation = np.array(EFFICIENTNET_PROCESSOR["image_std"])
    expected = pixels * factor - offset
    expected = (expected - np.array(MEAN)) / deviation if normalised else expected
    expected = expected / deviation if twice else expected
    found = preprocess(EFFICIENTNET_B0, processor)
    np.testing.assert_allclose(found.normalise(pixels, np.float32), expected, rtol=1e-5, atol=1e-5)


def test_efficientnets_crop_is_a_fraction():
    found = preprocess(
        EFFICIENTNET_B0, {**EFFICIENTNET_PROCESSOR, "size": {"height": 346, "width": 346}, "do_center_crop": True}
    )
    assert (found.height, found.resized(500, 300)) == (289, (346, 346))


@pytest.mark.parametrize(
    ("config", "processor"),
    [
        ({**TIMM_RESNET50, "pretrained_cfg": {"interpolation": "hamming"}}, {}),
        (RESNET50, {"image_processor_type": "SomeImageProcessor"}),
        (RESNET50, {**CONVNEXT_PROCESSOR, "resample": 4}),
        (EFFICIENTNET_B0, {**EFFICIENTNET_PROCESSOR, "do_center_crop": True}),  # 289 from 224
    ],
    ids=["hamming", "unknown", "box", "padded"],
)
def test_preprocessing_that_has_no_counterpart_is_left_out_with_a_warning(config, processor, caplog):
    assert preprocess(config, processor) is None
    assert "no counterpart" in caplog.text


def test_a_repository_that_says_nothing_has_no_preprocessing(caplog):
    assert preprocess(RESNET50, {}) is None
    assert not caplog.records


@pytest.mark.parametrize(
    "broken",
    [
        lambda: network({**RESNET50, "depths": 3}),
        lambda: labels({"id2label": {"a": "b"}}),
        lambda: labels({"architecture": "resnet18", "pretrained_cfg": "text"}),
        lambda: preprocess({"architecture": "resnet18", "pretrained_cfg": {"input_size": [224]}}, {}),
        lambda: preprocess({"architecture": "resnet18", "pretrained_cfg": {"mean": [0.5]}}, {}),
        lambda: preprocess(RESNET50, {**CONVNEXT_PROCESSOR, "size": {"height": 224}}),
        lambda: preprocess(RESNET50, {**CONVNEXT_PROCESSOR, "image_std": ["a", "b", "c"]}),
        lambda: preprocess(EFFICIENTNET_B0, {**EFFICIENTNET_PROCESSOR, "rescale_factor": 0}),
    ],
)
def test_nonsense_is_a_message(broken):
    with pytest.raises(UserError, match="as timm or transformers do"):
        broken()
