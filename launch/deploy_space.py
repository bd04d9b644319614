"""Puts the demo on Hugging Face: `python launch/deploy_space.py --space OWNER/NAME [--run runs/x]`.

The Space gets demo/, the package jaxnets, and of the run one checkpoint without its optimizer. Without a token, or with
`--dry-run`, it prints what would be uploaded.
"""

import argparse
import re
import shutil
import tempfile
from pathlib import Path

from jaxnets import cli
from jaxnets.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
_LEFT_OUT = (".pyi", ".pyc")  # suffixes
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python launch/deploy_space.py", description="Upload the demo and a run as a Hugging Face Space."
    )
    parser.add_argument("--space", required=True, metavar="OWNER/NAME", help="made if it is not there yet")
    parser.add_argument("--run", type=Path, help="a run directory (default: none; the Space shows efficientnet_lite0)")
    parser.add_argument("--checkpoint", default="best", help="best (default), newest, or a step")
    parser.add_argument("--private", action="store_true", help="make a new Space private")
    parser.add_argument("--dry-run", action="store_true", help="upload nothing")
    cli.run(parser, _deploy)


def _deploy(options: argparse.Namespace, _: list[str]) -> int:
    if not _NAME.fullmatch(options.space):
        raise UserError(f"--space must be OWNER/NAME, found {options.space!r}")
    from huggingface_hub import get_token

    files = files_of_space(options.run, options.checkpoint)
    for name, file in files.items():
        print(f"{file.stat().st_size:>12,}  {name}")
    total = sum(file.stat().st_size for file in files.values())
    print(f"{total:>12,}  bytes in {len(files)} files for https://huggingface.co/spaces/{options.space}")
    if options.dry_run:
        print("dry run: nothing was uploaded")
    elif get_token() is None:
        print("dry run: there is no token, and nothing was uploaded; set HF_TOKEN or run `hf auth login`")
    else:
        _upload(files, options.space, private=options.private)
        print(f"uploaded: https://huggingface.co/spaces/{options.space}")
    return 0


def files_of_space(run: Path | None, checkpoint: str) -> dict[str, Path]:
    """Returns the Space's files: the name there, and the file here.

    Raises:
        UserError: if there is no such run or checkpoint.
    """
    page = {name: file for name, file in _files(ROOT / "demo", "").items() if not name.startswith("run/")}
    files = {**page, **_files(ROOT / "jaxnets", "jaxnets/"), "LICENSE": ROOT / "LICENSE"}
    return files if run is None else {**files, **_files_of_run(run, checkpoint)}


def _files_of_run(path: Path, checkpoint: str) -> dict[str, Path]:
    from jaxnets.run.checkpoints import choose
    from jaxnets.run.directory import open_run

    run = open_run(path)
    run.read_model()
    step = run.checkpoints / str(choose(run.checkpoints, checkpoint))
    files = {f"run/{file.name}": file for file in (run.config, run.model, run.spread, run.metrics) if file.is_file()}
    files |= _files(run.report, "run/report/") if run.report.is_dir() else {}
    saved = _files(step, f"run/checkpoints/{step.name}/")
    return files | {name: file for name, file in saved.items() if file.relative_to(step).parts[0] != "optimizer"}


def _files(folder: Path, prefix: str) -> dict[str, Path]:
    return {
        f"{prefix}{file.relative_to(folder).as_posix()}": file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.suffix not in _LEFT_OUT
    }


def _upload(files: dict[str, Path], space: str, *, private: bool) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        with tempfile.TemporaryDirectory() as folder:
            stage(files, Path(folder))
            api.create_repo(space, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
            # What an earlier run left there would be shown with this one.
            api.upload_folder(
                repo_id=space,
                repo_type="space",
                folder_path=folder,
                delete_patterns=["run/**", "jaxnets/**"],
                commit_message="jaxnets: the demo",
            )
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        hint = "the token is not allowed to write there" if status in (401, 403) else "try again later"
        raise UserError(f"Hugging Face refused the upload to {space} ({error}): {hint}") from error
    except Exception as error:  # whatever the HTTP library of this huggingface_hub raises
        raise UserError(f"Hugging Face cannot be reached ({error}): check the network and try again") from error


def stage(files: dict[str, Path], folder: Path) -> None:
    """Copies the Space's files to a folder, as they will lie there."""
    for name, file in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


if __name__ == "__main__":
    main()
