"""The page as one HTML file that needs nothing else: light and dark, on a phone and on paper."""

from collections.abc import Sequence
from html import escape

from jaxnets.evaluate.page.section import Section

_STYLE = """
:root { color-scheme: light dark; --back: #f6f7f9; --card: #fff; --ink: #1b1f24; --dim: #5c6670; --line: #dfe3e8;
  --accent: #2f6fde; --bad: #c62828; --good: #1b7f3b; }
@media (prefers-color-scheme: dark) { :root { --back: #14171b; --card: #1d2127; --ink: #e6e9ed; --dim: #9aa5b1;
  --line: #323942; --accent: #79a7f5; --bad: #ff7b72; --good: #5ccf7f; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 20px 16px 60px; }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 0 0 6px; } h3 { font-size: 15px; margin: 18px 0 6px; }
p { margin: 4px 0 10px; max-width: 75ch; } .dim, figcaption, small { color: var(--dim); }
.bad { color: var(--bad); } .good { color: var(--good); }
nav { display: flex; flex-wrap: wrap; gap: 4px 14px; margin: 12px 0 0; font-size: 14px; } nav a { color: var(--accent);
  text-decoration: none; padding: 3px 0; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px;
  margin-top: 16px; }
ul { margin: 6px 0; padding-left: 20px; } li { overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 10px; margin: 12px 0; }
.tile { border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px; background: var(--card); }
.tile b { display: block; font-size: 23px; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile span { display: block; font-size: 13px; } .tile small { display: block; font-size: 12px; line-height: 1.35; }
.scroll { overflow-x: auto; } .tall { max-height: 460px; overflow-y: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; } td, th { text-align: left; padding: 4px 12px 4px 0;
  border-bottom: 1px solid var(--line); vertical-align: top; } th { color: var(--dim); font-weight: 500; }
.tall th { position: sticky; top: 0; background: var(--card); }
td:first-child { overflow-wrap: anywhere; min-width: 7em; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; padding-right: 14px;
  padding-left: 10px; } td.number:last-child, th.number:last-child { padding-right: 4px; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(400px, 100%), 1fr)); gap: 8px 20px;
  align-items: start; }
figure { margin: 0; } figure.drawing { margin: 8px 0; min-width: 0; } figure.drawing figcaption { font-size: 13px;
  max-width: 75ch; }
.wide { overflow-x: auto; } .wide svg { min-width: 520px; }
.images { display: grid; grid-template-columns: repeat(auto-fill, minmax(132px, 1fr)); gap: 12px; margin: 8px 0; }
figure.image .frame { aspect-ratio: 1; display: flex; align-items: center; justify-content: center;
  background: var(--back); border-radius: 6px; overflow: hidden; }
figure.image img { width: 100%; height: 100%; object-fit: contain; display: block; }
figure.image figcaption { font-size: 12px; line-height: 1.35; overflow-wrap: anywhere; margin-top: 3px; }
figure.image figcaption b { color: var(--ink); font-weight: 600; }
.case { border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px; margin: 10px 0; }
.case > b { display: block; overflow-wrap: anywhere; } .case .images { margin-bottom: 0; }
.pairs { display: grid; gap: 10px; grid-template-columns: repeat(auto-fill, minmax(min(480px, 100%), 1fr)); }
.pairs .case { margin: 0; }
.pairs .images { grid-template-columns: repeat(auto-fill, minmax(72px, 1fr)); gap: 6px; }
.trio { grid-template-columns: repeat(auto-fill, minmax(min(330px, 100%), 1fr)); display: grid; gap: 10px; }
.trio .case { margin: 0; } .trio .images { grid-template-columns: repeat(3, 1fr); gap: 6px; }
details { margin-top: 8px; } summary { cursor: pointer; color: var(--accent); }
@media (max-width: 480px) { main { padding: 14px 8px 40px; } section { padding: 12px 10px; border-radius: 8px; }
  h1 { font-size: 20px; } .tiles { grid-template-columns: repeat(2, 1fr); gap: 8px; } .tile b { font-size: 20px; }
  .images { grid-template-columns: repeat(3, 1fr); gap: 8px; } .trio .images { gap: 5px; } }
@media print { :root { color-scheme: light; --back: #fff; --card: #fff; --ink: #000; --dim: #444; --line: #ccc;
  --accent: #2f6fde; --bad: #c62828; --good: #1b7f3b; } @page { margin: 14mm; } body { font-size: 10.5pt; }
  main { max-width: none; padding: 0; } nav { display: none; } section { border: 0; border-top: 1px solid var(--line);
  border-radius: 0; padding: 8px 0; } .tall { max-height: none; overflow: visible; } .tall th { position: static; }
  .wide svg { min-width: 0; } details::details-content { content-visibility: visible; }
  tr, .case, .tile, figure { break-inside: avoid; } h2, h3, h2 + p { break-after: avoid; }
  .tiles { grid-template-columns: repeat(4, 1fr); } .columns { grid-template-columns: 1fr 1fr; }
  .images { grid-template-columns: repeat(6, 1fr); } .trio { grid-template-columns: 1fr 1fr; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; } }
"""


def document(title: str, head: str, sections: Sequence[Section]) -> str:
    """Returns the page.

    Args:
        title: plain text.
        head: HTML that comes before the sections.
        sections: in their order; those without content are left out.
    """
    there = [section for section in sections if section.html]
    links = "".join(f'<a href="#{section.anchor}">{escape(section.title)}</a>' for section in there)
    body = "".join(
        f'<section id="{section.anchor}"><h2>{escape(section.title)}</h2>{section.html}</section>' for section in there
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width, initial-scale=1"><title>{escape(title)}</title><style>{_STYLE}</style></head>'
        f"<body><main><h1>{escape(title)}</h1>{head}<nav>{links}</nav>{body}</main></body></html>\n"
    )
