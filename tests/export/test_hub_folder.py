"""A run on the Hub: what is uploaded, what is not, and that it opens again as what it was."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from huggingface_hub import errors

import jaxnets
from jaxnets.errors import UserError
from jaxnets.export.__main__ import main
from jaxnets.export.hub_folder import hub_folder
from jaxnets.export.push import parse_repository, push
from jaxnets.models.forward import forward, profile
from jaxnets.run.directory import FittedOn, RunDirectory
from jaxnets.train.start import open_start
from jaxnets.trust.outliers import Spread
from jaxnets.trust.refusal import Refusal
from tests.export.runs import digit_images, run_on_digits
from tests.pretrained.test_hub import cache as cache
from tests.pretrained.test_hub import store
from tests.train.runs import SMALL, short

SECRET = "/home/jane/secret"
OURS = ["README.md", "jaxnets.safetensors", "model.json", "model.safetensors", "spread.safetensors"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of several labels with all that is fitted to one, whose config names paths."""
    run = RunDirectory(run_on_digits(tmp_path_factory.mktemp("jane") / "run"))
    made = jaxnets.load(run.path, engine="jax")
    card = replace(
        run.read_model(),
        activation="sigmoid",
        several_labels=True,
        thresholds=tuple(np.linspace(0.1, 0.9, 10).tolist()),
        temperature=1.7,
        refusal=Refusal(energy=-0.25, distance=0.3, precision=0.95),
        fitted_on=FittedOn(step=1, weights="ema", split="validation", images=143),
    )
    data = {"source": f"csv:{SECRET}/labels.csv", "root": f"{SECRET}/images", "directory": f"{SECRET}/cache"}
    run.write(short(data=data, distill={"teacher": f"{SECRET}/teacher.pth"}), card)
    profiled = jax.eval_shape(
        lambda images: profile(forward(made.model, made.preprocess, made.variables, images, method="outputs")),
        np.zeros((1, 8, 8, 1), np.uint8),
    )
    profiles = np.random.default_rng(0).normal(size=(20, profiled.shape[1])).astype(np.float32)
    run.write_spread(Spread.of(profiles), 0.3)
    return run.path


@pytest.fixture
def command(monkeypatch, capsys):
    """Calls the command with some arguments; returns its status, its output and its messages."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["export", *map(str, arguments)])
        with pytest.raises(SystemExit) as raised:
            main()
        captured = capsys.readouterr()
        return raised.value.code, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "model"
    made, _ = hub_folder(str(run), "jane/digits")
    made.write(folder)
    return folder


def assert_same_model(found, expected):
    images = digit_images(5)
    np.testing.assert_array_equal(found.predict(images), expected.predict(images))
    answers = [[(answer.labels, answer.reason) for answer in model.answer(images)] for model in (found, expected)]
    assert answers[0] == answers[1]
    assert any(reason for _, reason in answers[0])
    fields = ("name", "labels", "preprocess", "activation", "several_labels", "thresholds", "temperature", "refusal")
    for field in (*fields, "matmul_precision"):
        assert getattr(found, field) == getattr(expected, field), field


def test_a_dry_run_writes_the_folder_and_it_opens_as_the_run_to_the_bit(command, run, tmp_path):
    arguments = ("--model", run, "--push-to", "jane/digits", "--dry-run", tmp_path / "model")
    status, said, errors_ = command(*arguments)
    assert (status, errors_) == (0, "")
    assert "nothing was uploaded" in said
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == OURS
    assert_same_model(jaxnets.load(tmp_path / "model", engine="jax"), jaxnets.load(run, engine="jax"))
    status, said, _ = command(*arguments)  # over the one before
    assert status == 0
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == OURS


def test_a_repository_of_the_hub_opens_as_the_run_to_the_bit(run, folder, cache):
    store(cache, "jane/digits", {path.name: path.read_bytes() for path in folder.iterdir()})
    assert_same_model(jaxnets.load("hf:jane/digits", engine="jax"), jaxnets.load(run, engine="jax"))


def test_weights_in_timms_layout_are_the_same_model(run, folder, tmp_path):
    expected = jaxnets.load(run, engine="jax")
    _, variables = jaxnets.load_pretrained(SMALL, folder / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, variables, expected.variables)


def test_nothing_in_the_folder_names_a_path_or_holds_an_image(run, folder):
    assert {path.name for path in folder.iterdir()} == set(OURS)
    for path in folder.iterdir():
        content = path.read_bytes()
        for text in ("secret", str(run), str(run.parent), "/home/", "/tmp/"):
            assert text.encode() not in content, f"{text} is in {path.name}"
    assert "labels.csv" in (folder / "README.md").read_text()


def test_another_training_starts_from_it_as_from_the_run(run, folder):
    starts = [open_start(short(model={"pretrained": str(place)})) for place in (run, folder)]
    assert starts[0].fields == starts[1].fields
    assert starts[0].preprocess == starts[1].preprocess
    np.testing.assert_array_equal(
        starts[0].variables["params"]["head"]["kernel"], starts[1].variables["params"]["head"]["kernel"]
    )
    with pytest.raises(UserError, match=f"holds a {SMALL}, not a resnet20_cifar"):
        jaxnets.load_pretrained("resnet20_cifar", folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.json").unlink(), "in the model.json beside it, and there is none"),
        (lambda folder: (folder / "jaxnets.safetensors").write_bytes(b"x" * 99), r"jaxnets\.safetensors is text"),
        (lambda folder: (folder / "model.json").write_text("{"), r"model\.json cannot be read"),
        (lambda folder: changed(folder, name="resnet20_cifar"), "'.*' is missing"),
        (lambda folder: changed(folder, name="resnet9000"), "there is no model 'resnet9000'"),
        (lambda folder: changed(folder, format=99), "format 99, this jaxnets reads"),
        (lambda folder: changed(folder, class_names=["a"] * 11), None),
    ],
    ids=["no card", "no weights", "cut card", "other network", "unknown network", "later format", "other classes"],
)
def test_damage_is_one_message(folder, tmp_path, damage, message):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("model.json", "jaxnets.safetensors"):
        (copy / name).write_bytes((folder / name).read_bytes())
    damage(copy)
    with pytest.raises(UserError, match=message):
        jaxnets.load(copy)


def changed(folder, **keys):
    saved = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(saved | keys))


def test_a_folder_that_holds_other_things_is_left_alone(command, run, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"")
    status, _, said = command("--model", run, "--push-to", "a/b", "--dry-run", tmp_path)
    assert status == 1
    assert "holds other things (photo.jpg)" in said
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--push-to", "digits"], "must be OWNER/REPO"),
        (["--push-to", "a/b", "--format", "onnx"], "--format are for a file"),
        (["--push-to", "a/b"], "there is no token for the Hub: set HF_TOKEN"),
        (["--dry-run", "x"], "are for --push-to OWNER/REPO: add it"),
        ([], "give --format (onnx, stablehlo, safetensors, web or triton) and --out FILE, or --push-to"),
    ],
)
def test_what_does_not_go_together_is_one_message(command, run, monkeypatch, arguments, message):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    status, _, said = command("--model", run, *arguments)
    assert status == 1
    assert message in said
    assert said.count("\n") == 1


def test_a_model_that_is_no_run_is_not_pushed(command, folder):
    status, _, said = command("--model", folder, "--push-to", "a/b", "--dry-run", folder.parent / "other")
    assert status == 1
    assert "is for a run directory" in said


@pytest.mark.parametrize(
    "name", ["b", "a/b/c", "a--b/c", "a/b.git", "a/..", "a b/c", "a/b@main", "/b", "a/", "a/" + "b" * 99]
)
def test_names_that_the_hub_has_not_are_refused(name):
    with pytest.raises(UserError, match="--push-to must be OWNER/REPO"):
        parse_repository(name)


def test_a_repository_may_be_given_as_it_is_loaded():
    assert parse_repository("hf:jane/digits") == parse_repository("https://huggingface.co/jane/digits") == "jane/digits"


def refused(kind, status):
    return kind("refused", response=SimpleNamespace(status_code=status, headers={}, request=None))


@pytest.fixture
def hub(monkeypatch):
    """What the Hub was asked for, and what it answers: an exception by the name of a method."""
    state = SimpleNamespace(asked=[], there=None, answers={})

    class Api:
        def model_info(self, repository):
            if state.there is None:
                raise refused(errors.RepositoryNotFoundError, 404)
            return state.there

        def _do(self, name, options):
            state.asked.append((name, options))
            if name in state.answers:
                raise state.answers[name]

        def create_repo(self, repository, **options):
            self._do("create_repo", options)

        def upload_folder(self, **options):
            self._do("upload_folder", options)

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    return state


def uploaded(folder, **options):
    return push(folder, "jane/digits", **{"private": False, "update": False, "message": "m", **options})


def test_a_new_repository_is_made_and_gets_the_folder(hub, folder):
    assert uploaded(folder, private=True) == "https://huggingface.co/jane/digits"
    (made, options), (up, files) = hub.asked
    assert (made, options["private"], up) == ("create_repo", True, "upload_folder")
    assert files["folder_path"] == folder
    assert set(OURS) <= set(files["allow_patterns"])


def test_a_repository_that_is_there_is_changed_only_when_that_is_asked_for(hub, folder):
    hub.there = SimpleNamespace(private=False)
    with pytest.raises(UserError, match="is there already: give another name, or --update"):
        uploaded(folder)
    with pytest.raises(UserError, match="is public, and --private is for one that is made"):
        uploaded(folder, update=True, private=True)
    assert not hub.asked
    uploaded(folder, update=True)
    assert [name for name, _ in hub.asked] == ["upload_folder"]


@pytest.mark.parametrize(
    ("method", "error", "message"),
    [
        ("create_repo", refused(errors.HfHubHTTPError, 403), "the token may not write to .*jane/digits"),
        ("create_repo", refused(errors.HfHubHTTPError, 409), "is there already"),
        ("create_repo", OSError("no route"), "cannot be reached .no route.*--dry-run DIR"),
        ("create_repo", errors.OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE forbids"),
        ("upload_folder", refused(errors.HfHubHTTPError, 503), "refused the upload.*was made, so give --update"),
        ("upload_folder", OSError("slow"), "cannot be reached .slow.*give --update"),
    ],
)
def test_what_the_hub_refuses_is_one_message(hub, folder, method, error, message):
    hub.answers[method] = error
    with pytest.raises(UserError, match=message):
        uploaded(folder)
