"""What is fetched of a repository of the Hub, from its cache or over the network."""

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

import pytest
from huggingface_hub import constants

from jaxnets.errors import UserError
from jaxnets.pretrained.hub import fetch

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG, PROCESSOR = {"model_type": "resnet", "depths": [3, 4, 6, 3]}, {"image_mean": [0.485, 0.456, 0.406]}


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
        "config.json": json.dumps(CONFIG).encode(),
        "preprocessor_config.json": json.dumps(PROCESSOR).encode(),
        "model.safetensors": b"weights",
    }
    snapshot = store(cache, "microsoft/resnet-50", files)
    with caplog.at_level(logging.WARNING):
        found = fetch("hf:microsoft/resnet-50")
    assert found.weights == snapshot / "model.safetensors"
    assert found.config == CONFIG
    assert found.preprocessor == PROCESSOR
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


def test_a_model_of_ours_is_fetched_in_its_own_layout_with_what_belongs_to_it(hub, tmp_path):
    ours = {"jaxnets.safetensors": b"own", "model.json": b"{}", "spread.safetensors": b"spread"}
    hub.files = {**FILES, **ours}
    done = fetch_elsewhere("hf:OWNER/REPO", tmp_path, hub.url)
    assert done.stdout.splitlines()[1] == "own"
    fetched = {path.rsplit("/", 1)[1] for path in hub.asked if path.startswith("GET") and "/api/" not in path}
    assert fetched == {"config.json", *ours}
