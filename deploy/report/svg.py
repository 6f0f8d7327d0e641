"""SVG without sizes, style sheets or scripts: every colour is a CSS variable, so that one drawing serves light and dark.

Matplotlib draws axes with stand-in colours; each is then replaced by its variable.
"""

import re
import warnings
from collections.abc import Sequence
from io import StringIO
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from hardspike.deploy.report.chart import TONES

# Stand-ins for the variables, which no drawing uses for anything else.
COLOURS = {name: f"#0102{index:02x}" for index, name in enumerate(("ink", "soft", "grid", "paper", *TONES), start=0x10)}
FONT_SIZE = 11.5
LINE = 14.0
# Widths of letters of a wide font (DejaVu Sans), since the reader's own is not known, as shares of the size.
NARROW, WIDE, WIDEST = "ijlI.,:;'|!()[] tfr-", "ABCDEGHKNOQRSUVXYw%+=_→", "mMW@…–"
LETTERS = dict.fromkeys(NARROW, 0.36) | dict.fromkeys(WIDE, 0.75) | dict.fromkeys(WIDEST, 0.97)


def text_width(text: str) -> float:
    """Pixels that a text takes at `FONT_SIZE`, estimated high."""
    return FONT_SIZE * sum(LETTERS.get(letter, 0.63) for letter in text)


def fitted(text: str, pixels: float, most: int = 1) -> list[str]:
    """The words of a text in at most `most` lines of so many pixels; what does not fit is cut."""
    lines: list[str] = []
    for word in plain_text(text, 10_000).split():
        if lines and (len(lines) == most or text_width(f"{lines[-1]} {word}") <= pixels):
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return [_cut(line, pixels) for line in lines]


def _cut(line: str, pixels: float) -> str:
    if text_width(line) <= pixels:
        return line
    kept = line
    while len(kept) > 1 and text_width(kept) + text_width("…") > pixels:
        kept = kept[:-1]
    return kept.rstrip() + "…"


def plain_text(text: str, longest: int) -> str:
    """One line, of characters that XML allows, cut to `longest` of them."""
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def shape(tag: str, *children: Element, **attributes: float | str) -> Element:
    """An element; numbers of attributes are pixels, rounded to hundredths, and `_` in a name is `-`."""
    element = Element(tag)
    for key, value in attributes.items():
        element.set(key.replace("_", "-"), value if isinstance(value, str) else f"{round(value, 2):g}")
    element.extend(children)
    return element


def label(
    text: str, x: float, y: float, *, tone: str = "soft", anchor: str = "start", bold: bool = False, rotate: float = 0
) -> Element:
    """A line of text. y: its base line. anchor: start, middle or end. rotate: degrees around (x, y)."""
    weight = "; font-weight: 600" if bold else ""
    element = shape("text", x=x, y=y, style=f"font-size: {FONT_SIZE:g}px; fill: var(--{tone}){weight}")
    element.text = plain_text(text, len(text))
    if anchor != "start":
        element.set("text-anchor", anchor)
    if rotate:
        element.set("transform", f"rotate({rotate:g} {x:.1f} {y:.1f})")
    return element


def paragraph(lines: Sequence[str], x: float, y: float, *, tone: str = "soft", anchor: str = "start") -> list[Element]:
    """Lines of text below one another. y: base line of the first."""
    return [label(text, x, y + LINE * at, tone=tone, anchor=anchor) for at, text in enumerate(lines)]


def box(x: float, y: float, width: float, height: float, style: str) -> Element:
    return shape("rect", x=x, y=y, width=width, height=height, style=style)


def canvas(width: float, height: float, alternative: str, children: Sequence[Element]) -> Element:
    """The whole drawing. alternative: what it shows, for readers who do not see it."""
    svg = shape("svg", *children)
    svg.attrib |= {"class": "figure", "viewBox": f"0 0 {width:g} {height:g}", "role": "img", "aria-label": alternative}
    svg.set("style", f"max-width:{width:g}px")
    return svg


def plotted(figure: Figure, name: str) -> list[Element]:
    """What Matplotlib drew, without date, style sheet or an id that another figure could have. name: unique on a page."""
    text = StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        # The browser has glyphs that Matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        # Not savefig, which draws everything twice. Untyped in some releases of Matplotlib.
        made: Any = FigureCanvasSVG(figure)
        made.print_svg(text, metadata={"Date": None})
    root = ElementTree.fromstring(text.getvalue())
    referenced = {first or second for first, second in re.findall(r"\(#([\w-]+)\)|\"#([\w-]+)\"", text.getvalue())}
    return [element for child in root for element in _plain(child, name, referenced)]


def _plain(element: Element, prefix: str, referenced: set[str]) -> list[Element]:
    """The drawing alone: local names, prefixed ids where referenced, variables for colours, no groups without a meaning."""
    tag = element.tag.rpartition("}")[2]
    if tag in ("metadata", "style") or element.get("style", "").endswith("opacity: 0"):
        return []
    made = Element(tag)
    made.text = (element.text or "").strip()
    for key, value in element.attrib.items():
        local = key.rpartition("}")[2]
        if local == "id":
            if value in referenced:
                made.set("id", f"{prefix}-{value}")
        elif local == "href":
            made.set("href", f"#{prefix}-{value[1:]}")
        elif not (local == "transform" and value.startswith("rotate(-0 ")):
            made.set(local, _themed(value.replace("url(#", f"url(#{prefix}-")))
    for child in element:
        made.extend(_plain(child, prefix, referenced))
    if tag in ("g", "defs") and not made.attrib:
        return [made] if tag == "defs" and len(made) else list(made)
    return [made]


def _themed(value: str) -> str:
    """Variables for the stand-in colours, the page's font, and a hundredth of a pixel at most."""
    for name, colour in COLOURS.items():
        value = value.replace(colour, f"var(--{name})")
    value = re.sub(r"font-family: [^;]*;? ?|(?<=px) '[^;]*", "", value)
    return re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", value)
