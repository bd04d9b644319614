"""What the findings come to."""

from collections.abc import Sequence

from jaxnets.audit.finding import Finding


def verdict(findings: Sequence[Finding]) -> str:
    """Returns one sentence on whether training would suffer."""
    problems = [finding for finding in findings if finding.severity == "problem"]
    if problems:
        return f"training would suffer: {'; '.join(finding.title for finding in problems)}"
    if any(finding.severity == "warning" for finding in findings):
        return "nothing that training would suffer from; some images are worth a look"
    return "nothing that training would suffer from"


def status(findings: Sequence[Finding]) -> int:
    """Returns the command's exit status: 1 where training would suffer, else 0."""
    return int(any(finding.severity == "problem" for finding in findings))
