"""ONNX Runtime for browsers: two files of npm's package onnxruntime-web, fetched once and checked."""

import hashlib
import io
import os
import tarfile
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import NamedTuple

from jaxnets.cache import cache_directory
from jaxnets.errors import UserError

VERSION = "1.30.0"
_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="  # npm's, of it
_ARCHIVE = f"onnxruntime-web-{VERSION}.tgz"
_SECONDS = 60  # without a byte, after which a download is given up
_CODE, _WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"


class Runtime(NamedTuple):
    code: bytes  # a JavaScript module
    wasm: bytes


def open_runtime(archive: Path | None = None) -> Runtime:
    """Returns ONNX Runtime for browsers, from the user's cache, else from npm's registry (33 MB).

    Args:
        archive: the package as it was downloaded elsewhere, for a machine without a network. The registry is that of
            the environment's NPM_CONFIG_REGISTRY, where it is set.

    Raises:
        UserError: if it cannot be had, or is not the package that was published.
    """
    kept = cache_directory() / f"onnxruntime-web-{VERSION}"
    if archive is None and all((kept / name).is_file() for name in (_CODE, _WASM)):
        return Runtime(*((kept / name).read_bytes() for name in (_CODE, _WASM)))
    content = _downloaded() if archive is None else _read(archive)
    found = b64encode(hashlib.sha512(content).digest()).decode()
    if found != _SHA512:
        raise UserError(
            f"{archive or _address()} is not onnxruntime-web {VERSION} (its SHA-512 is {found}, expected {_SHA512}): "
            f"get it from {_address()}"
        )
    with tarfile.open(fileobj=io.BytesIO(content)) as files:
        runtime = Runtime(*(_member(files, name) for name in (_CODE, _WASM)))
    kept.mkdir(parents=True, exist_ok=True)
    for name, part in zip((_CODE, _WASM), runtime, strict=True):
        beside = kept / f"{name}.{os.getpid()}"
        beside.write_bytes(part)
        beside.replace(kept / name)
    return runtime


def _address() -> str:
    registry = os.environ.get("NPM_CONFIG_REGISTRY") or "https://registry.npmjs.org"
    return f"{registry.rstrip('/')}/onnxruntime-web/-/{_ARCHIVE}"


def _downloaded() -> bytes:
    address = _address()
    if not address.startswith("https://"):
        raise UserError(f"NPM_CONFIG_REGISTRY must be an https:// address, found {address}")
    try:
        with urllib.request.urlopen(address, timeout=_SECONDS) as answer:
            return answer.read()
    except (urllib.error.URLError, OSError) as error:
        raise UserError(
            f"{address} cannot be downloaded ({error}): where there is no network, download it elsewhere and give it "
            f"with --web-runtime {_ARCHIVE}"
        ) from error


def _read(archive: Path) -> bytes:
    try:
        return archive.read_bytes()
    except OSError as error:
        raise UserError(f"{archive} cannot be read ({error.strerror}): give the {_ARCHIVE} of npm") from error


def _member(files: tarfile.TarFile, name: str) -> bytes:
    found = files.extractfile(f"package/dist/{name}")
    assert found is not None  # the archive is the one that was published
    return found.read()
