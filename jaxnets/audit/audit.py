"""The audit from start to end: every image looked at once, then compared, then judged."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jaxnets.audit.album import Album, Embedding, read_album
from jaxnets.audit.classes import counts, of_classes, sizes
from jaxnets.audit.copies import groups_of, of_copies
from jaxnets.audit.duplicates import exact, near
from jaxnets.audit.finding import Finding, sort
from jaxnets.audit.statistics import of_images
from jaxnets.audit.verdict import status, verdict
from jaxnets.audit.wrong_labels import of_labels
from jaxnets.data.dataset import Selection

FORMAT = 1
READING, COMPARING, JUDGING = "reading", "comparing", "judging labels"
PHASES = (READING, COMPARING, JUDGING)
Progress = Callable[[str, int, int], None]  # phase, images done, of how many


@dataclass
class Audit:
    """What an audit has found so far; `album` is there once all images are read."""

    description: str  # of the source
    notes: list[str]
    album: Album | None = None
    findings: list[Finding] = field(default_factory=list)
    done: list[str] = field(default_factory=list)  # phases that came to their end

    @property
    def left(self) -> list[str]:
        return [phase for phase in PHASES if phase not in self.done]

    @property
    def status(self) -> int:
        return status(self.findings)

    def to_json(self) -> dict[str, Any]:
        """Returns everything that was found, as JSON values; the names of all images that are accused are in it."""
        album = self.album
        assert album is not None
        found = counts(album)
        accused = {i for finding in self.findings for i in finding.examples}
        names = {i: album.described(i) for i in accused}
        return {
            "format": FORMAT,
            "source": self.description,
            "verdict": verdict(self.findings),
            "status": self.status,
            "images": len(album),
            "not_done": self.left,
            "notes": self.notes,
            "splits": {name: int((album.split == i).sum()) for i, name in enumerate(album.splits)},
            "classes": {
                name: dict(zip(album.splits, found[:, i].tolist(), strict=True))
                for i, name in enumerate(album.class_names)
            },
            "sizes": sizes(album),
            "findings": [finding.to_json(names) for finding in self.findings],
        }


def run_audit(
    audit: Audit,
    selections: Mapping[str, Selection],
    class_names: tuple[str, ...],
    *,
    threads: int,
    white_level: int,
    embedding: Embedding | None = None,
    progress: Progress = lambda phase, done, total: None,
) -> None:
    """Fills an audit, phase by phase: what is interrupted keeps what was found before.

    Args:
        audit: to be filled.
        selections: by name, a split of a source and the numbers of its examples that count.
        class_names: that the labels count.
        threads: that decode.
        white_level: as config.data.white_level, for images of 16 bits.
        embedding: that labels are judged by; None leaves them unjudged.
        progress: is told phase, images done, and of how many.
    """
    n = sum(len(chosen) for _, chosen in selections.values())
    album = read_album(
        selections,
        class_names,
        threads=threads,
        embedding=embedding,
        progress=lambda done: progress(READING, done, n),
    )
    audit.album = album
    audit.findings = sort([*of_classes(album), *of_images(album, white_level)])
    audit.done.append(READING)
    same = exact(album)
    pairs = near(album, same, lambda done: progress(COMPARING, done, n))
    audit.findings = sort([*audit.findings, *of_copies(album, same, pairs)])
    audit.done.append(COMPARING)
    group = groups_of(album, same, pairs)
    judged, note = of_labels(album, group, lambda done: progress(JUDGING, done, n))
    contradicted = {i for f in audit.findings if f.kind == "contradiction" for i in f.examples}
    audit.findings = sort([*audit.findings, *(_without(finding, contradicted) for finding in judged)])
    audit.findings = [finding for finding in audit.findings if finding.cases or finding.lines]
    audit.notes.append(note)
    audit.done.append(JUDGING)


def _without(finding: Finding, examples: set[int]) -> Finding:
    """Returns the finding without cases that another finding has already."""
    return replace(finding, cases=tuple(case for case in finding.cases if not examples & set(case.examples)))
