"""Repositories of the Hugging Face Hub: fetched once, and kept in the Hub's own cache."""

import errno
import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxnets.errors import UserError
from jaxnets.pretrained.files import shards
from jaxnets.run.resolve import CARD, PORTABLE, SPREAD, WEIGHT_FILES

_log = logging.getLogger(__name__)

_CONFIG = "config.json"
_PREPROCESSOR = "preprocessor_config.json"
_TIMEOUT = 5.0  # seconds for the Hub's first answer; without a network the cache is what there is
_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
_LARGEST_JSON = 32 << 20  # bytes; ImageNet-21k's labels are 2 MB

_NAME = re.compile(r"(?P<name>\w[\w.-]*/\w([\w.-]*\w)?)(@(?P<revision>[\w.][\w./-]*))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class HubRepository:
    """A repository's weights, and its configuration files as they are."""

    weights: Path  # in huggingface_hub's cache; the folder is the commit
    config: Mapping[str, Any] = field(default_factory=dict)  # config.json; empty where there is none
    preprocessor: Mapping[str, Any] = field(default_factory=dict)  # preprocessor_config.json, likewise


def fetch(repository: str) -> HubRepository:
    """Downloads a model repository's weights and configuration, and nothing else of it, into huggingface_hub's cache.

    The Hub is asked once what the repository holds now; where it does not answer within seconds, or with
    HF_HUB_OFFLINE=1, the cache answers. A commit that is in the cache is not asked for.

    Args:
        repository: `OWNER/REPO` or `OWNER/REPO@REVISION`, with or without `hf:` before it; the revision is a branch, a
            tag or a commit.

    Raises:
        UserError: if there is no such repository, it may not be read, it holds no weights, or it can neither be
            reached nor found in the cache.
    """
    from huggingface_hub.errors import OfflineModeIsEnabled

    name, revision = _parse(repository)
    if _COMMIT.fullmatch(revision) and (found := _from_cache(name, revision)):
        return found
    try:
        return _download(name, revision)
    except UserError as error:
        if not (found := _from_cache(name, revision)):
            raise
        if not isinstance(error.__cause__, OfflineModeIsEnabled):
            commit = found.weights.parent.name
            _log.warning("hf:%s is taken from the cache (commit %s): %s", name, commit, error.__cause__ or error)
        return found


def _parse(repository: str) -> tuple[str, str]:
    match = _NAME.fullmatch(repository.removeprefix("hf:"))
    if not match or ".." in repository or "--" in match["name"]:
        raise UserError(
            f"a repository is hf:OWNER/REPO or hf:OWNER/REPO@REVISION (hf:timm/resnet18.a1_in1k), found {repository!r}"
        )
    return match["name"], match["revision"] or "main"


def _download(name: str, revision: str) -> HubRepository:
    from huggingface_hub import HfApi, hf_hub_download

    with _hub_errors(name, revision):
        listed = HfApi().model_info(name, revision=revision, timeout=_TIMEOUT).siblings or []
    files = sorted(file.rfilename for file in listed)
    order = WEIGHT_FILES if CARD in files else (*WEIGHT_FILES[1:], PORTABLE)
    weights = next((file for file in order if file in files), None)
    if weights is None:
        shown = ", ".join(files[:12]) + (f" and {len(files) - 12} more" if len(files) > 12 else "")
        raise UserError(f"hf:{name} holds none of {', '.join(WEIGHT_FILES)}: it holds {shown or 'no files'}")
    with _hub_errors(name, revision):
        path = Path(hf_hub_download(name, weights, revision=revision))
        spread = set(shards(path).values()) if weights.endswith(".index.json") else set()
        for file in (_CONFIG, _PREPROCESSOR, CARD, SPREAD, *sorted(spread)):
            if file in files:
                hf_hub_download(name, file, revision=path.parent.name)  # of the same commit
    return beside(path)


def _from_cache(name: str, revision: str) -> HubRepository | None:
    from huggingface_hub import try_to_load_from_cache

    for file in WEIGHT_FILES:
        path = try_to_load_from_cache(name, file, revision=revision)
        if isinstance(path, str) and (file != PORTABLE or Path(path).with_name(CARD).is_file()):
            return beside(Path(path))
    return None


def beside(weights: Path) -> HubRepository:
    """Returns a file of weights with the configuration that lies in its folder.

    Raises:
        UserError: if there is one that cannot be read.
    """
    return HubRepository(
        weights=weights,
        config=_read_json(weights.with_name(_CONFIG)),
        preprocessor=_read_json(weights.with_name(_PREPROCESSOR)),
    )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    if path.stat().st_size > _LARGEST_JSON:
        raise UserError(f"{path} has more than {_LARGEST_JSON >> 20} MiB: it is no configuration")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): remove it, to download it again if it is the Hub's"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object, found {type(content).__name__}")
    return content


@contextmanager
def _hub_errors(name: str, revision: str) -> Iterator[None]:
    """Turns what huggingface_hub raises into one message that says what to do."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{name}"
    token = "set HF_TOKEN to a token that may read it (or run hf auth login)"
    elsewhere = (
        f"get the weights from {page}/tree/{revision} on another machine (hf download {name} --local-dir FOLDER) "
        f"and give that folder"
    )
    try:
        yield
    except errors.GatedRepoError as error:
        raise UserError(f"{page} is gated: accept its terms there, and {token}") from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(f"there is no {page}, or it is private: check the name, or {token}") from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{page} has no revision {revision}: see {page}/tree/main for its branches and tags") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        advice = token if status in (401, 403) else f"try again later, or {elsewhere}"
        raise UserError(f"{page} cannot be fetched (HTTP status {status}): {advice}") from error
    except errors.OfflineModeIsEnabled as error:
        raise UserError(
            f"hf:{name} is not in the cache ({constants.HF_HUB_CACHE}), and HF_HUB_OFFLINE forbids to fetch it: "
            f"unset it, or {elsewhere}"
        ) from error
    except Exception as error:  # whatever the HTTP library of this huggingface_hub raises: it has been three so far
        if isinstance(error, OSError) and error.errno in _NOT_WRITABLE:
            raise UserError(
                f"hf:{name} cannot be written to the cache {constants.HF_HUB_CACHE} ({error.strerror}): "
                f"make room or permission for it, or set HF_HUB_CACHE to another folder"
            ) from error
        raise UserError(
            f"{page} cannot be reached ({error or type(error).__name__}), and hf:{name} is not in the cache "
            f"({constants.HF_HUB_CACHE}): check the network, or {elsewhere}"
        ) from error
