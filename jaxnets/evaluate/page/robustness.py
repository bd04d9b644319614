"""What corruptions do to the model, and what they look like."""

from html import escape
from typing import TYPE_CHECKING

from jaxnets import figures
from jaxnets.audit.sheet import data_uri, thumbnail
from jaxnets.data.examples import Examples
from jaxnets.evaluate.corruptions import EXTRA, FAMILIES, corrupt
from jaxnets.evaluate.corruptions.table import STRENGTHS
from jaxnets.evaluate.page.section import Section, drawing, image, images, paragraph, percent, table, tile, tiles
from jaxnets.evaluate.robustness import Robustness

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PICTURED = 3  # the severity at which each corruption is shown


def robustness(found: Robustness, examples: Examples) -> Section:
    """Returns the errors by corruption and severity, and one image under each."""
    mean, relative = found.mean_error, found.relative_error
    head = [
        tile(percent(mean.value), "mean corruption error", f"{percent(mean.low)} … {percent(mean.high)}"),
        tile(
            percent(relative.value), "added to the clean error", f"{percent(relative.low)} … {percent(relative.high)}"
        ),
        tile(percent(found.clean_error), "clean error", "on the same images"),
    ]
    if found.mce is not None and found.relative_mce is not None:
        head.append(tile(percent(found.mce), "mCE", "over AlexNet's errors"))
        head.append(tile(percent(found.relative_mce), "relative mCE", "likewise"))
    drawn = draw(found)
    html = tiles(head) + drawing(
        drawn, "error by corruption and severity", "Error at severities 0 (clean) to 5, by family of corruption."
    )
    errors = found.errors
    rows = [
        (_title(name), *(percent(x) for x in errors[i].tolist()), percent(float(errors[i].mean())))
        for i, name in enumerate(found.names)
    ]
    html += table(("error at severity", *map(str, STRENGTHS), "mean"), rows, numbers=tuple(range(1, 7)))
    html += f"<div class=case><b>One image at severity {_PICTURED}</b>{_pictures(found, examples)}</div>"
    html += paragraph(f"{'; '.join(found.notes)}.", "dim")
    return Section("Corrupted images", html, "robustness", {"corruptions.png": figures.png(drawn)})


def _pictures(found: Robustness, examples: Examples) -> str:
    example = int(found.chosen[0])
    clean = examples.read(example).image
    cells = [image(data_uri(thumbnail(clean)), "<b>clean</b>", "clean")]
    for name in found.names:
        changed = corrupt(clean, name, _PICTURED, seed=found.seed, example=example)
        cells.append(image(data_uri(thumbnail(changed)), f"<b>{escape(_title(name))}</b>", _title(name)))
    return images(cells)


def draw(found: Robustness) -> "Figure":
    """Returns the error over the severities, a panel for each family."""
    families = {family: [n for n in names if n in found.names] for family, names in {**FAMILIES, "more": EXTRA}.items()}
    there = {family: names for family, names in families.items() if names}
    rows = -(-len(there) // 2)
    figure = figures.new_figure(6.4, 0.5 + 2.3 * rows)
    panels = figure.subplots(rows, min(len(there), 2), sharey=True, squeeze=False).ravel()
    errors = 100 * found.errors
    for axes, (family, names) in zip(panels, there.items(), strict=False):
        for name, mark in zip(names, "osv^", strict=False):
            values = [100 * found.clean_error, *errors[found.names.index(name)].tolist()]
            axes.plot((0, *STRENGTHS), values, marker=mark, label=_title(name))
        axes.set(title=family, xticks=(0, *STRENGTHS), ylim=(0, 100))
        axes.legend(fontsize=7.5)
    for axes in panels[len(there) :]:
        axes.set_axis_off()
    figure.supylabel("error, %", fontsize=9)
    return figure


def _title(name: str) -> str:
    return {"jpeg_compression": "JPEG", "elastic_transform": "elastic"}.get(name, name.replace("_", " "))
