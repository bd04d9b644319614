import numpy as np
import pytest
from PIL import Image

from jaxnets.data.examples import Examples
from jaxnets.data.sources import open_source
from jaxnets.engine.backbone import Backbone
from jaxnets.engine.onnx_file import write_bytes
from jaxnets.errors import UserError
from jaxnets.finetune import kept
from jaxnets.finetune.features import features_of
from jaxnets.finetune.views import views_of
from jaxnets.loading import load
from jaxnets.train.stop import Stopped


@pytest.fixture
def backbone(weights) -> Backbone:
    found = load(weights)
    return Backbone(found.name, found.model, found.variables, found.preprocess, "default")


@pytest.fixture
def examples(config, backbone) -> Examples:
    split = open_source(config().data, 0).splits["train"]
    return Examples(split, np.arange(len(split)), backbone.preprocess, skip_corrupt=False)


@pytest.fixture
def compute(cache, backbone, examples):
    """Computes the features and counts the vectors that were not kept."""

    def compute(backbone=backbone, examples=examples, views=2, **options):
        computed, said = [0], []
        found = features_of(
            backbone, examples, views, root=cache / "features", source="here", name="train", threads=2,
            say=said.append, advance=lambda done, total: computed.append(done), **options,
        )  # fmt: skip
        return found, computed[-1], said

    return compute


def test_features_are_what_the_head_sees_of_the_image_and_of_its_mirror(weights, compute, examples, backbone):
    (vectors, readable), computed, _ = compute()
    assert (vectors.shape[:2], computed, readable.all()) == ((len(examples), 2), 2 * len(examples), True)
    fitted = [examples.read(i).image for i in range(5)]
    classifier = load(weights)
    np.testing.assert_allclose(vectors[:5, 0], classifier.embed_fitted(np.stack(fitted)), atol=1e-5)
    mirrored = np.stack([image[:, ::-1] for image in fitted])
    np.testing.assert_allclose(vectors[:5, 1], classifier.embed_fitted(mirrored), atol=1e-5)


def test_crops_are_an_images_own_and_mirrored_at_times(backbone):
    image = np.arange(40 * 30, dtype=np.uint16).reshape(40, 30).astype(np.uint8)
    seen = [[view.fit(image) for view in views_of(backbone.preprocess, 6, number)] for number in (1, 1, 2)]
    assert all(np.array_equal(a, b) for a, b in zip(seen[0], seen[1], strict=True))
    assert [np.array_equal(a, b) for a, b in zip(seen[0], seen[2], strict=True)] == [True, True] + 4 * [False]
    assert len({view.tobytes() for view in seen[0]}) == 6


def test_what_is_kept_is_not_computed_again(compute, backbone):
    first, computed, _ = compute(views=1)
    other = Backbone(backbone.name, backbone.model, backbone.variables, backbone.preprocess, "default")
    again, more, _ = compute(other, views=1)
    assert (computed, more) == (len(first.vectors), 0)
    assert "embedder" not in vars(other)  # not even opened
    np.testing.assert_array_equal(first.vectors, again.vectors)
    both, mirrors, _ = compute()
    assert mirrors == len(first.vectors)
    np.testing.assert_array_equal(both.vectors[:, 0], first.vectors[:, 0])


def test_what_was_computed_before_a_stop_is_kept(compute, examples):
    asked = iter(range(1000))
    with pytest.raises(Stopped):
        compute(stopping=lambda: next(asked) >= 5)
    _, rest, _ = compute()
    assert 0 < rest < 2 * len(examples)


def test_other_examples_of_the_same_split_find_theirs(compute, examples):
    compute()
    split, numbers = examples.stored
    chosen = np.array([30, 2, 17])
    few = Examples(split, numbers[chosen], examples.fit, skip_corrupt=False)
    everything, _, _ = compute()
    found, computed, _ = compute(examples=few)
    assert computed == 0
    np.testing.assert_array_equal(found.vectors, everything.vectors[chosen])


@pytest.mark.parametrize("damage", [lambda b: b[:-7], lambda b: b[:-9] + b"123456789", lambda b: b"", lambda b: b"{}"])
def test_a_damaged_cache_is_said_and_computed_again(compute, cache, caplog, damage):
    first, computed, _ = compute()
    (shard,) = cache.rglob("*.features")
    shard.write_bytes(damage(shard.read_bytes()))
    again, more, _ = compute()
    assert more == computed
    assert "damaged or cut short" in caplog.text
    np.testing.assert_array_equal(first.vectors, again.vectors)
    assert compute()[1] == 0


def test_other_weights_are_noticed_and_said(compute, backbone):
    compute()
    head = backbone.variables["params"]["head"]
    other_head = {**backbone.variables, "params": {**backbone.variables["params"], "head": {**head, "bias": 1}}}
    assert compute(Backbone(backbone.name, backbone.model, other_head, backbone.preprocess, "default"))[1] == 0
    stem = next(name for name in backbone.variables["params"] if "conv" in name)
    layer = {name: 2 * leaf for name, leaf in backbone.variables["params"][stem].items()}
    other = {**backbone.variables, "params": {**backbone.variables["params"], stem: layer}}
    _, computed, said = compute(Backbone(backbone.name, backbone.model, other, backbone.preprocess, "default"))
    assert computed
    assert said == ["the features that are kept of here are of other weights: they are computed anew"]


def test_other_images_under_the_same_names_are_noticed_and_said(compute, config, examples, images):
    compute()
    Image.fromarray(np.full((14, 14), 77, np.uint8)).save(images / "a" / "3.png")
    split = open_source(config().data, 0).splits["train"]
    changed = Examples(split, np.arange(len(split)), examples.fit, skip_corrupt=False)
    _, computed, said = compute(examples=changed)
    assert computed == 2 * len(examples)
    assert said == ["the features that are kept of here are of other data: they are computed anew"]


def test_a_folder_of_features_under_another_name_is_not_believed(compute, cache, caplog):
    compute()
    (meta,) = cache.rglob("meta.json")
    meta.write_text(meta.read_text().replace('"weights": "', '"weights": "0'))
    _, computed, _ = compute()
    assert computed
    assert "are of other weights or data: they are computed again" in caplog.text


def test_a_full_disk_is_survived_and_said_once(compute, monkeypatch, caplog, examples):
    def full(path, content):
        raise UserError(f"{path} cannot be written (No space left on device)")

    monkeypatch.setattr(kept, "write_bytes", full)
    monkeypatch.setattr("jaxnets.finetune.features._KEPT_EVERY", 0.0)
    found, computed, _ = compute()
    assert computed == 2 * len(examples)
    assert np.abs(found.vectors).sum(2).all()
    assert caplog.text.count("features are no longer kept") == 1
    monkeypatch.setattr(kept, "write_bytes", write_bytes)
    assert compute()[1] == computed


def test_the_longest_unused_features_make_room(compute, backbone, cache, monkeypatch):
    compute()
    monkeypatch.setattr(kept, "_LARGEST", 10)
    stem = next(name for name in backbone.variables["params"] if "conv" in name)
    layer = {name: 2 * leaf for name, leaf in backbone.variables["params"][stem].items()}
    other = {**backbone.variables, "params": {**backbone.variables["params"], stem: layer}}
    compute(Backbone(backbone.name, backbone.model, other, backbone.preprocess, "default"))
    assert len(list(cache.rglob("meta.json"))) == 1


def test_an_image_that_cannot_be_read_stops_or_is_left_out(compute, images, examples):
    (images / "b" / "4.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"b/4.png is not an image .* --config.data.skip_corrupt=true"):
        compute()
    split, chosen = examples.stored
    skipping = Examples(split, chosen, examples.fit, skip_corrupt=True)
    (_, readable), _, _ = compute(examples=skipping)
    assert [split.name(i) for i in chosen[~readable]] == ["b/4.png"]


def test_more_features_than_the_memory_holds_are_refused(compute, monkeypatch):
    monkeypatch.setattr("jaxnets.finetune.features._memory", lambda: 1000)
    with pytest.raises(UserError, match=r"take 0.0 GiB.*set config.finetune.views to 1"):
        compute()
