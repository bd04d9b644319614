"""Findings that follow from the numbers of each image by itself, beside those of all others."""

from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Bool

from jaxnets.audit.album import Album
from jaxnets.audit.finding import Case, Finding
from jaxnets.data.sources.names import printable

BLANK = 0.995  # share of the pixels of one colour, from which there is nothing to be seen
_DARK, _BRIGHT = 8.0, 247.0  # mean grey levels
_LOST = 0.05  # share of the rows
_GREY = 8.0  # grey levels between channels, up to which an image has no colour
_COLOURED = 0.9  # share of the images that have colour, from which one that has not stands out
_TINY = 5.0  # times shorter than the median image
_TINY_BELOW = 64  # pixels of the shorter side, from which an image is not called tiny
_ASPECT = 3.0  # times longer or wider than the median image
_LEAST = 10  # images that a median is taken of


def of_images(album: Album, white_level: int) -> list[Finding]:
    """Returns what is found of single images; what is in the album alone is looked at."""
    in_range = ~_out_of_range(album, white_level)  # what comes out black for its range is not called black as well
    found = [
        _unreadable(album),
        _blank(album, in_range),
        _lost(album),
        _exposure(album, in_range),
        _tiny(album),
        _grey(album),
        _aspect(album),
        _depth(album, white_level),
        _turned(album),
        _odd_files(album),
    ]
    return [finding for finding in found if finding is not None and finding.cases]


def _cases(
    album: Album, chosen: Bool[np.ndarray, " n"], measure: np.ndarray, text: Callable[[int], str], *, rising: bool
) -> tuple[Case, ...]:
    """Returns a case for each chosen image, the worst first: of the lowest measure, or with `rising` the highest."""
    at = np.flatnonzero(chosen)
    at = at[np.argsort(-measure[at] if rising else measure[at], kind="stable")]
    return tuple(Case(examples=(int(i),), measure=round(float(measure[i]), 4), text=text(int(i))) for i in at)


def _unreadable(album: Album) -> Finding:
    return Finding(
        kind="unreadable",
        severity="warning",
        title="unreadable",
        advice="a run stops at the first of them: mend or remove them, or set config.data.skip_corrupt",
        unit="",
        cases=tuple(Case(examples=(i,), measure=None, text=_reason(album, i)) for i in sorted(album.errors)),
    )


def _reason(album: Album, example: int) -> str:
    """Returns why an image cannot be read, without its name, which is shown beside it."""
    path = album.path(example)
    error = album.errors[example].removeprefix(album.name(example))
    return (error if path is None else error.removeprefix(printable(path))).strip()


def _blank(album: Album, in_range: Bool[np.ndarray, " n"]) -> Finding:
    chosen = album.readable & in_range & (album.flat >= BLANK)
    return Finding(
        kind="blank",
        severity="warning",
        title="of one colour, or nearly",
        advice="nothing is to be seen in them: remove them",
        unit="share of the pixels within 8 grey levels of the median",
        cases=_cases(album, chosen, album.flat, lambda i: f"{album.flat[i]:.1%} of one colour", rising=True),
    )


def _lost(album: Album) -> Finding:
    chosen = album.readable & (album.lost >= _LOST) & (album.flat < BLANK)
    return Finding(
        kind="cut_off",
        severity="warning",
        title="cut off, and filled with grey",
        advice="a file ended too early, and was then saved again as if it were whole: fetch the originals",
        unit="share of the rows that are lost",
        cases=_cases(album, chosen, album.lost, lambda i: f"{album.lost[i]:.0%} lost", rising=True),
    )


def _exposure(album: Album, in_range: Bool[np.ndarray, " n"]) -> Finding:
    chosen = badly_exposed(album) & in_range
    off = np.minimum(album.brightness, 255 - album.brightness)
    return Finding(
        kind="exposure",
        severity="warning",
        title="nearly black or nearly white",
        advice="see whether anything can be told from them; 16 bits read as 8 look like this too",
        unit="mean grey level",
        cases=tuple(
            Case(examples=case.examples, measure=round(float(album.brightness[case.examples[0]]), 1), text=case.text)
            for case in _cases(album, chosen, off, lambda i: f"mean {album.brightness[i]:.0f} of 255", rising=False)
        ),
    )


def badly_exposed(album: Album) -> Bool[np.ndarray, " n"]:
    """Tells which images are nearly black or white; where most are, as drawings are, it is the way of the set."""
    shown = album.readable & (album.flat < BLANK)
    usual = float(np.median(album.brightness[shown])) if shown.any() else 0.0
    if not 3 * _DARK < usual < 255 - 3 * _DARK:
        return np.zeros(len(album), bool)
    return np.asarray(shown & ((album.brightness < _DARK) | (album.brightness > _BRIGHT)))


def _tiny(album: Album) -> Finding | None:
    shorter = np.minimum(album.height, album.width)
    usual = _usual(shorter[album.readable])
    if usual is None:
        return None
    chosen = album.readable & (shorter * _TINY < usual) & (shorter < _TINY_BELOW)
    return Finding(
        kind="tiny",
        severity="warning",
        title=f"tiny beside the others, whose shorter side has {usual:.0f} pixels (median)",
        advice="enlarged to the model's size they are blurs; they may be thumbnails that were saved by mistake",
        unit="pixels of the shorter side",
        cases=_cases(album, chosen, shorter, lambda i: f"{album.width[i]}×{album.height[i]}", rising=False),
    )


def _grey(album: Album) -> Finding | None:
    judged = album.readable & (album.flat < BLANK)
    coloured = judged & (album.colour > _GREY)
    if coloured.sum() < max(_LEAST, _COLOURED * judged.sum()):
        return None
    return Finding(
        kind="grey",
        severity="note",
        title="without colour, among images that have it",
        advice="harmless where each class has its share of them; where one class has most, a model learns that",
        unit="grey levels between the channels",
        cases=_cases(album, judged & ~coloured, album.colour, lambda i: album.label_text(i), rising=False),
    )


def _aspect(album: Album) -> Finding | None:
    aspect = np.log(np.maximum(album.width, 1) / np.maximum(album.height, 1))
    usual = _usual(aspect[album.readable])
    if usual is None:
        return None
    off = np.abs(aspect - usual)
    return Finding(
        kind="aspect",
        severity="warning",
        title="much longer or wider than the others",
        advice="a centre crop loses most of them, and a squeeze distorts them: crop them to what they show, or remove "
        "them",
        unit="times the median's aspect",
        cases=_cases(
            album,
            album.readable & (off > np.log(_ASPECT)),
            np.exp(off),
            lambda i: f"{album.width[i]}×{album.height[i]}",
            rising=True,
        ),
    )


def _depth(album: Album, white_level: int) -> Finding:
    chosen = _out_of_range(album, white_level)
    clipped = bool((album.brightest > white_level).any())
    return Finding(
        kind="sixteen_bits",
        severity="warning",
        title="of 16 bits, in another range than config.data.white_level",
        advice=f"white is {white_level:,}: what is far below comes out black, and what is above white; set "
        "config.data.white_level to what white is (4095 for 12 bits), or convert them to 8 bits",
        unit="brightest value",
        cases=_cases(album, chosen, album.brightest, lambda i: f"up to {album.brightest[i]:,}", rising=clipped),
    )


def _out_of_range(album: Album, white_level: int) -> Bool[np.ndarray, " n"]:
    """Tells which images of 16 bits use little of the range that becomes 0 … 255, or more than it."""
    dark = (album.brightest >= 0) & (album.brightest * 8 < white_level)
    return np.asarray(dark | (album.brightest > white_level))


def _turned(album: Album) -> Finding:
    return Finding(
        kind="exif_turned",
        severity="note",
        title="stored turned, as their EXIF says",
        advice="jaxnets turns them upright; other programs may not",
        unit="EXIF's orientation",
        cases=_cases(
            album,
            album.orientation > 1,
            album.orientation,
            lambda i: f"orientation {album.orientation[i]}",
            rising=True,
        ),
    )


def _odd_files(album: Album) -> Finding:
    texts = {i: f"{kind} in a file of another suffix" for i, kind in album.misnamed.items()}
    for i, odd in album.odd.items():
        text = {"CMYK": "CMYK, converted to RGB without its profile", "animated": "animated: the first frame is taken"}
        texts[i] = "; ".join(filter(None, (texts.get(i), text.get(odd, odd))))
    return Finding(
        kind="odd_files",
        severity="note",
        title="files that are not what their names say, or hold more than is read",
        advice="jaxnets reads them; programs that trust the suffix may not",
        unit="",
        cases=tuple(Case(examples=(i,), measure=None, text=texts[i]) for i in sorted(texts)),
    )


def _usual(values: np.ndarray) -> float | None:
    return float(np.median(values)) if len(values) >= _LEAST else None


def named(names: Iterable[str], most: int = 8) -> str:
    """Returns names in a sentence, the first of them and how many more there are."""
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
