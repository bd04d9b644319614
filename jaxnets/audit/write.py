"""An audit on disk: audit.json, index.html and the sheets."""

import json
from collections.abc import Sequence
from pathlib import Path

from jaxnets.audit import sheet
from jaxnets.audit.audit import Audit
from jaxnets.audit.page import page
from jaxnets.audit.preview import Fed, describe_target
from jaxnets.errors import UserError

_ON_SHEET = 60  # thumbnails of a finding


def prepare_folder(out: Path) -> None:
    """Makes the folder, before any work is done for it.

    Raises:
        UserError: if it cannot be made or written to.
    """
    try:
        (out / "sheets").mkdir(parents=True, exist_ok=True)
        probe = out / "sheets" / ".write-test"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"--out {out} cannot be written to ({error.strerror}): give another folder, or make room and permission"
        ) from error


def write(audit: Audit, fed: Sequence[Fed], out: Path) -> None:
    """Writes everything; sheets of an earlier audit in the same folder are removed.

    Raises:
        UserError: if it cannot be written.
    """
    album = audit.album
    assert album is not None
    thumbnails = sheet.Thumbnails(album)
    try:
        for old in (out / "sheets").glob("*.png"):
            old.unlink()
        for finding in audit.findings:
            image = sheet.of_finding(finding, album, thumbnails, _ON_SHEET)
            if image is not None:
                image.save(out / "sheets" / f"{finding.kind}.png")
        for each in fed:
            cells = [
                (sheet.thumbnail(image), (describe_target(target, each.floor, album.class_names),))
                for image, target in zip(each.images, each.target, strict=True)
            ]
            title = f"step {each.step + 1}: {', '.join(each.stages)}"
            sheet.grid(cells, title).save(out / "sheets" / f"fed-{each.step + 1}.png")
        text = json.dumps(audit.to_json(), ensure_ascii=False, indent=1)
        (out / "audit.json").write_text(text + "\n", "utf-8", errors="backslashreplace")
        html = page(audit.description, album, audit.findings, audit.notes, fed, thumbnails)
        (out / "index.html").write_text(html, "utf-8", errors="backslashreplace")
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}): make room and permission for it") from error
