"""What an audit finds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["problem", "warning", "note"]  # training suffers; worth a look; worth knowing
_ORDER: tuple[Severity, ...] = ("problem", "warning", "note")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image that is found, or several that are one."""

    examples: tuple[int, ...]  # numbers of the images, as `Album` counts them
    measure: float | None  # in the finding's unit
    text: str  # what is said of it, a few words


@dataclass(frozen=True, kw_only=True)
class Finding:
    kind: str  # its name in audit.json, and that of its sheet
    severity: Severity
    title: str
    advice: str  # what it means, and what to do
    unit: str  # of the measures
    cases: tuple[Case, ...] = ()  # the worst first; none where it is about classes or splits as a whole
    lines: tuple[str, ...] = ()  # what is said of classes or splits, a sentence each

    @property
    def examples(self) -> list[int]:
        """The images that are found, each once."""
        return list(dict.fromkeys(example for case in self.cases for example in case.examples))

    def to_json(self, names: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
        """Returns JSON values; `names` says of each image what it is called."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "title": self.title,
            "advice": self.advice,
            "unit": self.unit,
            "images": len(self.examples),
            "lines": list(self.lines),
            "cases": [
                {"measure": case.measure, "text": case.text, "images": [names[i] for i in case.examples]}
                for case in self.cases
            ],
        }


def sort(findings: Sequence[Finding]) -> list[Finding]:
    """Returns the findings, what makes training suffer first."""
    return sorted(findings, key=lambda finding: _ORDER.index(finding.severity))
