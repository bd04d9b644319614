"""The audit as one HTML file that needs nothing else: thumbnails inside, light and dark, every name escaped."""

from collections.abc import Iterator, Sequence
from html import escape

import numpy as np

from jaxnets.audit.album import Album
from jaxnets.audit.classes import counts, sizes
from jaxnets.audit.finding import Case, Finding
from jaxnets.audit.preview import Fed, describe_target
from jaxnets.audit.sheet import Thumbnails, data_uri, thumbnail
from jaxnets.audit.verdict import verdict

_CASES = 24  # of a finding, that are shown with their images
_TOGETHER = 6  # images of one case, likewise
_LISTED = 500  # names of a finding
_CLASSES = 400  # rows of the table of classes
_SHOWN_CLASSES = 12  # classes whose images are shown
_OF_EACH = 8
_STAGED = 6  # images of a batch that are shown stage by stage
_MARK = {"problem": "✗", "warning": "!", "note": "i"}

_STYLE = """
:root { color-scheme: light dark; --back: #f6f7f9; --card: #fff; --ink: #1b1f24; --dim: #5c6670; --line: #dfe3e8;
  --bar: #5b8def; --problem: #c62828; --warning: #a15c00; --note: #3b6ea5; --good: #1b7f3b; }
@media (prefers-color-scheme: dark) { :root { --back: #14171b; --card: #1d2127; --ink: #e6e9ed; --dim: #9aa5b1;
  --line: #323942; --bar: #6f9bf2; --problem: #ff7b72; --warning: #e3a547; --note: #79b0ea; --good: #5ccf7f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 24px; margin: 0 0 2px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 0 0 4px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px;
  margin-top: 18px; }
p { margin: 2px 0 10px; } .dim, figcaption { color: var(--dim); }
.verdict { font-weight: 600; } .problem { color: var(--problem); } .warning { color: var(--warning); }
.note { color: var(--note); } .good { color: var(--good); }
.mark { display: inline-block; width: 1.45em; height: 1.45em; line-height: 1.45em; border-radius: 50%;
  text-align: center; font-size: 12px; font-weight: 700; color: var(--card); margin-right: 8px; }
.mark.problem { background: var(--problem); } .mark.warning { background: var(--warning); }
.mark.note { background: var(--note); }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: 4px 10px 4px 0;
  border-bottom: 1px solid var(--line); vertical-align: middle; } th { color: var(--dim); font-weight: 500; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
a { color: inherit; } .scroll { max-height: 420px; overflow: auto; }
.bar { background: var(--bar); height: 9px; border-radius: 3px; min-width: 1px; }
.cases { display: flex; flex-wrap: wrap; gap: 12px; align-items: flex-start; }
.case { border: 1px solid var(--line); border-radius: 8px; padding: 8px; max-width: 100%; }
.case > b { display: block; font-size: 13px; margin-bottom: 4px; } .row { display: flex; gap: 8px; flex-wrap: wrap; }
figure { margin: 0; width: 150px; } figure .frame { height: 130px; display: flex; align-items: center;
  justify-content: center; background: var(--back); border-radius: 5px; overflow: hidden; }
figure img { max-width: 100%; max-height: 100%; image-rendering: auto; display: block; }
figcaption { font-size: 12px; line-height: 1.35; overflow-wrap: anywhere; margin-top: 3px; }
figcaption b { color: var(--ink); font-weight: 600; }
.tight figure { width: 104px; } .tight figure .frame { height: 92px; }
details { margin-top: 10px; } summary { cursor: pointer; color: var(--dim); } .names { font-size: 13px;
  columns: 3 300px; overflow-wrap: anywhere; padding: 0; list-style: none; margin: 6px 0; }
"""


def page(
    description: str,
    album: Album,
    findings: Sequence[Finding],
    notes: Sequence[str],
    fed: Sequence[Fed],
    thumbnails: Thumbnails,
) -> str:
    """Returns the page. However many images there are, it holds so many thumbnails and names; audit.json has all."""
    body = "".join(
        (
            _head(description, album, findings, notes),
            _summary(findings),
            _classes(album),
            "".join(_finding(finding, album, thumbnails) for finding in findings),
            "".join(_fed(each, album.class_names) for each in fed),
            _samples(album, thumbnails),
        )
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width, initial-scale=1"><title>{escape(description)}</title><style>{_STYLE}</style>'
        f"</head><body><main>{body}</main></body></html>\n"
    )


def _head(description: str, album: Album, findings: Sequence[Finding], notes: Sequence[str]) -> str:
    parts = ", ".join(f"{int((album.split == i).sum()):,} {name}" for i, name in enumerate(album.splits))
    size = sizes(album)
    if size:
        low, middle, high = (f"{size['width'][key]:.0f}×{size['height'][key]:.0f}" for key in ("min", "median", "max"))
        parts += f"; {low} to {high} pixels, median {middle}" if low != high else f"; {low} pixels"
    worst = findings[0].severity if findings else "good"
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return (
        f"<h1>{escape(description)}</h1><p class=dim>{len(album):,} images in {len(album.class_names):,} classes: "
        f'{escape(parts)}</p><p class="verdict {worst}">{escape(verdict(findings))}</p>'
        + (f"<ul class=dim>{listed}</ul>" if notes else "")
    )


def _summary(findings: Sequence[Finding]) -> str:
    if not findings:
        return ""
    rows = "".join(
        f'<tr><td><span class="mark {f.severity}">{_MARK[f.severity]}</span><a href="#{f.kind}">{escape(f.title)}</a>'
        f"</td><td class=number>{len(f.examples) or '':,}</td></tr>"
        if f.cases
        else f'<tr><td><span class="mark {f.severity}">{_MARK[f.severity]}</span><a href="#{f.kind}">'
        f"{escape(f.title)}</a></td><td></td></tr>"
        for f in findings
    )
    return f"<section><table><tr><th>found</th><th class=number>images</th></tr>{rows}</table></section>"


def _classes(album: Album) -> str:
    found = counts(album)
    order = np.argsort(-found[0], kind="stable")[:_CLASSES]
    largest = max(int(found.max(initial=0)), 1)
    head = "".join(f"<th class=number>{escape(name)}</th><th style='width:20%'></th>" for name in album.splits)
    rows = "".join(
        f"<tr><td>{escape(album.class_names[i])}</td>"
        + "".join(
            f"<td class=number>{n:,}</td><td><div class=bar style='width:{100 * n / largest:.1f}%'></div></td>"
            for n in found[:, i].tolist()
        )
        + "</tr>"
        for i in order.tolist()
    )
    more = len(album.class_names) - len(order)
    rest = f"<p class=dim>and {more:,} classes more; audit.json has all</p>" if more else ""
    return (
        f"<section><h2>Classes</h2><div class=scroll><table><tr><th>class</th>{head}</tr>{rows}</table></div>{rest}"
        "</section>"
    )


def _finding(finding: Finding, album: Album, thumbnails: Thumbnails) -> str:
    lines = "".join(f"<p>{escape(line)}</p>" for line in finding.lines)
    cases = "".join(_case(case, album, thumbnails) for case in finding.cases[:_CASES])
    count = f": {len(finding.examples):,} images" if finding.cases else ""
    unit = f" <span class=dim>Ordered by {escape(finding.unit)}.</span>" if finding.unit and finding.cases else ""
    more = ""
    if len(finding.cases) > _CASES or any(len(case.examples) > _TOGETHER for case in finding.cases):
        examples = finding.examples
        names = "".join(f"<li>{escape(album.name(i))}</li>" for i in examples[:_LISTED])
        left = f"<li>… and {len(examples) - _LISTED:,} more in audit.json</li>" if len(examples) > _LISTED else ""
        more = f"<details><summary>all names</summary><ul class=names>{names}{left}</ul></details>"
    return (
        f'<section id="{finding.kind}"><h2><span class="mark {finding.severity}">{_MARK[finding.severity]}</span>'
        f"{escape(finding.title[:1].upper() + finding.title[1:])}{count}</h2><p class=dim>"
        f"{escape(finding.advice[:1].upper() + finding.advice[1:])}.{unit}</p>{lines}"
        f"<div class=cases>{cases}</div>{more}</section>"
    )


def _case(case: Case, album: Album, thumbnails: Thumbnails) -> str:
    several = len(case.examples) > 1
    figures = "".join(
        _figure(thumbnails, i, f"<b>{escape(album.label_text(i))}</b> {escape(album.split_name(i))}<br>"
                f"{escape(album.name(i))}" + ("" if several else f"<br>{escape(case.text)}"))
        for i in case.examples[:_TOGETHER]
    )  # fmt: skip
    rest = f"<span class=dim>and {len(case.examples) - _TOGETHER} more</span>" if len(case.examples) > _TOGETHER else ""
    if not several:
        return f"<div class=case>{figures}</div>"
    return f"<div class=case><b>{escape(case.text)}</b><div class=row>{figures}{rest}</div></div>"


def _figure(thumbnails: Thumbnails, example: int, caption: str) -> str:
    image = thumbnails.get(example)
    inside = "<span class=dim>unreadable</span>" if image is None else f'<img alt="" src="{data_uri(image)}">'
    return f"<figure><div class=frame>{inside}</div><figcaption>{caption}</figcaption></figure>"


def _fed(fed: Fed, class_names: tuple[str, ...]) -> str:
    stages = " → ".join(fed.stages)
    rows = "".join(
        "<div class=case><div class='row tight'>"
        + "".join(_picture(images[i], f"<b>{escape(name)}</b>") for name, images in fed.stages.items())
        + "</div></div>"
        for i in range(min(_STAGED, len(fed.target)))
    )
    batch = "".join(
        _picture(image, escape(describe_target(target, fed.floor, class_names)))
        for image, target in zip(fed.images, fed.target, strict=True)
    )
    return (
        f"<section><h2>What the model is fed in step {fed.step + 1}</h2><p class=dim>By the functions of the train "
        f"step: {escape(stages)}. Below each image its target.</p><div class=cases>{rows}</div>"
        f"<p></p><div class='row tight'>{batch}</div></section>"
    )


def _picture(image: np.ndarray, caption: str) -> str:
    return (
        f'<figure><div class=frame><img alt="" src="{data_uri(thumbnail(image))}"></div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _samples(album: Album, thumbnails: Thumbnails) -> str:
    """Returns some images of each class, evenly spread."""
    rows = list(_rows_of_classes(album, thumbnails))
    return f"<section><h2>What the classes look like</h2>{''.join(rows)}</section>" if rows else ""


def _rows_of_classes(album: Album, thumbnails: Thumbnails) -> Iterator[str]:
    for label, name in enumerate(album.class_names[:_SHOWN_CLASSES]):
        of_class = album.label == label if album.targets is None else album.targets[:, label] > 0
        members = np.flatnonzero(of_class & album.readable)
        if len(members):
            chosen = members[np.unique(np.linspace(0, len(members) - 1, _OF_EACH).astype(int))].tolist()
            figures = "".join(_figure(thumbnails, i, escape(album.name(i))) for i in chosen)
            yield f"<p><b>{escape(name)}</b></p><div class='row tight'>{figures}</div>"
