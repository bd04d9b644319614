"""The upload to the Hugging Face Hub."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxnets.errors import UserError
from jaxnets.export.hub_folder import FILES

_NAME = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)


def parse_repository(text: str) -> str:
    """Returns OWNER/REPO.

    Raises:
        UserError: if it is not the name of a repository.
    """
    name = text.removeprefix("hf:").removeprefix("https://huggingface.co/").rstrip("/")
    bad = "--" in name or ".." in name or name.endswith((".git", "-", ".")) or len(name) > 96
    if bad or not _NAME.fullmatch(name):
        raise UserError(
            f"--push-to must be OWNER/REPO, of letters, digits, '-', '_' and '.', found {text!r}: OWNER is your name "
            "on huggingface.co or that of an organisation"
        )
    return name


def check_token() -> None:
    """Refuses to go on without a token, before any work is done.

    Raises:
        UserError: that says how to get one.
    """
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise UserError(
            "HF_HUB_OFFLINE forbids to reach the Hub: unset it, or write the folder alone with --dry-run DIR"
        )
    if get_token() is None:
        raise UserError(
            f"there is no token for the Hub: set HF_TOKEN to one that may write ({constants.ENDPOINT}/settings/tokens) "
            "or run hf auth login; --dry-run DIR writes the folder without one"
        )


def push(folder: Path, repository: str, *, private: bool, update: bool, message: str) -> str:
    """Uploads a folder as one commit, and returns the page's address.

    Args:
        folder: as `hub_folder` makes it.
        repository: OWNER/REPO; it is made.
        private: whether others may not see it.
        update: it may be there already, and gets a commit in which these files take the place of the old ones.
        message: of the commit.

    Raises:
        UserError: if it cannot be had: the repository is there, no permission, no network.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import RepositoryNotFoundError

    api, page = HfApi(), f"{constants.ENDPOINT}/{repository}"
    with _hub_errors(page):
        try:
            there = api.model_info(repository)
        except RepositoryNotFoundError:  # or it is one that this token may not see: then it cannot be made
            there = None
    if there is not None and not update:
        raise UserError(
            f"{page} is there already: give another name, or --update to add a commit in which this model takes the "
            "place of what is there (its history stays)"
        )
    if there is not None and private and not there.private:
        raise UserError(
            f"{page} is public, and --private is for one that is made: make it private in its settings first, or leave "
            "--private out"
        )
    if there is None:
        with _hub_errors(page):
            api.create_repo(repository, repo_type="model", private=private)
    with _hub_errors(page, made=there is None):
        api.upload_folder(
            repo_id=repository,
            repo_type="model",
            folder_path=folder,
            allow_patterns=list(FILES),
            delete_patterns=list(FILES),  # those of an earlier model that this one has not
            commit_message=message,
        )
    return page


@contextmanager
def _hub_errors(page: str, *, made: bool = False) -> Iterator[None]:
    """Turns what huggingface_hub raises into one message that says what to do."""
    from huggingface_hub import errors

    again = "; the repository was made, so give --update the next time" if made else ""
    try:
        yield
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        reason = getattr(error, "server_message", None) or f"HTTP status {status}"
        if status in (401, 403):
            raise UserError(
                f"the token may not write to {page} ({reason}): set HF_TOKEN to one that may, of an account that "
                f"belongs to the owner{again}"
            ) from error
        if status == 409:
            raise UserError(f"{page} is there already ({reason}): give another name, or --update") from error
        raise UserError(f"the Hub refused the upload to {page} ({reason}): try again later{again}") from error
    except errors.OfflineModeIsEnabled as error:
        raise UserError(
            "HF_HUB_OFFLINE forbids to reach the Hub: unset it, or write the folder with --dry-run"
        ) from error
    except Exception as error:  # whatever the HTTP library of this huggingface_hub raises
        raise UserError(
            f"{page} cannot be reached ({error or type(error).__name__}): check the network and run the same command "
            f"again{again}, or write the folder with --dry-run DIR and upload it elsewhere (hf upload)"
        ) from error
