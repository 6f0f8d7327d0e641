"""Figures of a report as inline SVG, and images as tiny PNGs: nothing is fetched, and CSS variables colour everything.

Matplotlib draws with stand-in colours; each is then replaced by a variable of the page, so one figure serves light and dark.
"""

import base64
import re
import struct
import warnings
import zlib
from collections.abc import Sequence
from io import StringIO
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike

FORMS = {"ann": "ANN", "snn": "float SNN", "deployed": "deployed"}
MARKERS = {"ann": "o", "snn": "s", "deployed": "D"}
INPUTS = ("clean", "noise", "attack")
COLOURS = {name: f"#0102{index:02x}" for index, name in enumerate(("ink", "soft", "grid", *FORMS, *INPUTS), start=0x10)}
POINTS_PER_INCH = 72
FONT_SIZE = 11.5
LONGEST_NAME = 16


def accuracy_figure(networks: Sequence[dict[str, Any]]) -> Markup:
    """Accuracy against eps: colour and marker say the arithmetic, solid or dashed says which network."""
    figure, axes = _axes(420, 310, left=46, bottom=42)
    largest = max((budget["eps"] for network in networks for budget in network["robust"]), default=1.0)
    ends, told = [], []
    for number, network in enumerate(networks):
        last = []
        for form in FORMS:
            points = [(0.0, network["clean"][form])]
            points += [(b["eps"], b["white_box"][form]) for b in network["robust"] if form in b["white_box"]]
            # Side by side, so that the intervals of three networks can be told apart.
            shift = (list(FORMS).index(form) - 1) * 0.014 * largest
            eps = [x + shift for x, _ in points]
            colour, dashes = COLOURS[form], "-" if number == 0 else (0, (4, 2))
            axes.vlines(
                eps, [100 * s["low"] for _, s in points], [100 * s["high"] for _, s in points], color=colour, alpha=0.45
            )
            value = [100 * share["value"] for _, share in points]
            axes.plot(eps, value, color=colour, linestyle=dashes, marker=MARKERS[form], markersize=5, linewidth=1.7)
            last.append((points[-1][0], value[-1]))
            told.append(
                f"{network['name']}, {FORMS[form]}: "
                + ", ".join(f"{v:.1f} % at eps {x:g}" for (x, _), v in zip(points, value, strict=True))
            )
        ends.append((sum(v for _, v in last) / len(last), network["name"]))
    for height, name in _apart(ends, 7.0):
        axes.text(
            1.06 * largest, height, _short(name), va="center", color=COLOURS["ink"], fontweight="bold", parse_math=False
        )
    axes.set_xlim(-0.06 * largest, 1.4 * largest)
    axes.set_ylim(0, 103)
    axes.set_xticks(sorted({0.0, *(b["eps"] for network in networks for b in network["robust"])}))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: "clean" if x == 0 else f"{x:g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g} %"))
    axes.set_xlabel("eps: largest change of a pixel, full range = 1", color=COLOURS["soft"], loc="left")
    axes.grid(axis="y", color=COLOURS["grid"])
    return _svg(figure, "accuracy", "Line chart of accuracy against eps. " + "; ".join(told) + ".")


def layer_figure(name: str, what: str, layers: Sequence[str], groups: dict[str, list[dict[str, float]]]) -> Markup:
    """Grouped bars, one group per layer; a thin line reaches from the mean to the 95th percentile.

    groups: by kind of input (clean, noise, attack), the distribution over images for each of `layers`.
    """
    figure, axes = _layer_axes(layers, len(groups))
    height = 0.82 / max(len(groups), 1)
    for index, (kind, values) in enumerate(groups.items()):
        y = [row - 0.41 + (index + 0.5) * height for row in range(len(layers))]
        mean = [value["mean"] for value in values]
        axes.barh(y, mean, height=0.86 * height, color=COLOURS[kind])
        axes.hlines(y, mean, [max(v["mean"], v["p95"]) for v in values], color=COLOURS["soft"], linewidth=1)
    _layer_axis(axes, layers)
    told = [
        f"{layer}: " + ", ".join(f"{kind} {values[row]['mean']:,.0f}" for kind, values in groups.items())
        for row, layer in enumerate(layers)
    ]
    return _svg(figure, name, f"Bar chart of {what} per layer and image. " + "; ".join(told) + ".")


def energy_figure(
    name: str, unit: str, scale: float, layers: Sequence[str], groups: dict[str, list[tuple[float, float]]]
) -> Markup:
    """One bar per layer and kind of input, from the lower to the higher of the cost sets; joule times `scale` is `unit`."""
    figure, axes = _layer_axes(layers, len(groups))
    height = 0.82 / max(len(groups), 1)
    for index, (kind, spans) in enumerate(groups.items()):
        y = [row - 0.41 + (index + 0.5) * height for row in range(len(layers))]
        low = [scale * span[0] for span in spans]
        width = [scale * (span[1] - span[0]) for span in spans]
        # The edge keeps a span of no width visible.
        axes.barh(y, width, left=low, height=0.7 * height, color=COLOURS[kind], edgecolor=COLOURS[kind], linewidth=1.5)
    _layer_axis(axes, layers)
    axes.set_xlabel(f"{unit} per image, lower to higher cost set", color=COLOURS["soft"], loc="left")
    told = [
        f"{layer}: "
        + ", ".join(
            f"{kind} {scale * spans[row][0]:.3g} to {scale * spans[row][1]:.3g} {unit}"
            for kind, spans in groups.items()
        )
        for row, layer in enumerate(layers)
    ]
    return _svg(figure, name, "Interval chart of energy per layer. " + "; ".join(told) + ".")


def time_figure(name: str, layer: str, shares: dict[str, list[float]], top: float) -> Markup:
    """Share of one layer's neurons that fire at each step. top: of the vertical axis, the same for all layers of a page."""
    figure, axes = _axes(210, 150, left=40, bottom=22, top=24)
    for kind, values in shares.items():
        percent = [100 * value for value in values]
        axes.plot(
            range(1, len(values) + 1),
            percent,
            color=COLOURS[kind],
            marker="o",
            markersize=5 if kind == "clean" else 3,
            # Wide and pale below narrow and strong: both stay visible where they coincide.
            linewidth=4.5 if kind == "clean" else 1.4,
            alpha=0.5 if kind == "clean" else 1.0,
            linestyle=(0, (3, 2)) if kind == "noise" else "-",
        )
    steps = max(map(len, shares.values()), default=1)
    axes.set_xlim(0.6, steps + 0.4)
    axes.set_ylim(0, 100 * top * 1.08 if top > 0 else 1)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g} %"))
    axes.grid(axis="y", color=COLOURS["grid"])
    title = axes.set_title(_short(layer), color=COLOURS["ink"], loc="left", fontsize=FONT_SIZE, fontweight="bold")
    title.set_parse_math(False)
    told = [f"{kind} " + ", ".join(f"{100 * value:.1f}" for value in values) for kind, values in shares.items()]
    return _svg(
        figure, name, f"Line chart: per cent of the neurons of {layer} that fire at each step: {'; '.join(told)}."
    )


def image_uri(pixels: ArrayLike) -> str:
    """Values in [0, 1], (C, H, W), as a PNG data URI: grey for one channel, RGB for three, else the mean over channels."""
    image = np.asarray(pixels, dtype=np.float64)
    if len(image) not in (1, 3):
        image = image.mean(axis=0, keepdims=True)
    return _png(np.floor(255 * image.clip(0, 1) + 0.5).astype(np.uint8))


def difference_uri(clean: ArrayLike, attacked: ArrayLike, eps: float) -> str:
    """The change, -eps to +eps: blue, white, orange for one channel; each channel around middle grey for three."""
    change = (np.asarray(attacked, dtype=np.float64) - np.asarray(clean, dtype=np.float64)) / eps
    if len(change) == 3:
        return image_uri(0.5 + 0.5 * change)
    change = change.mean(axis=0).clip(-1, 1)
    white, orange, blue = (np.array(rgb, dtype=np.float64) for rgb in ((250, 250, 250), (196, 78, 0), (22, 92, 170)))
    end = np.where(change[..., None] > 0, orange, blue)
    rgb = white + np.abs(change)[..., None] * (end - white)
    return _png(np.floor(rgb + 0.5).astype(np.uint8).transpose(2, 0, 1))


def _png(image: "np.ndarray[Any, np.dtype[np.uint8]]") -> str:
    """uint8 (C, H, W), C 1 or 3."""
    channels, height, width = image.shape
    rows = image.transpose(1, 2, 0).reshape(height, -1)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows), 9)
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts]
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)).decode("ascii")


def _axes(width: int, height: int, *, left: float, bottom: float, top: float = 4) -> tuple[Figure, Axes]:
    """Sizes in pixels. Margins are given, because letting Matplotlib measure them costs as much time as drawing."""
    figure = Figure(figsize=(width / POINTS_PER_INCH, height / POINTS_PER_INCH))
    figure.patch.set_alpha(0)
    right = width - 6
    axes = figure.add_axes((left / width, bottom / height, (right - left) / width, (height - bottom - top) / height))
    axes.patch.set_alpha(0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(COLOURS["soft"])
    axes.tick_params(color=COLOURS["soft"], labelcolor=COLOURS["soft"], labelsize=FONT_SIZE, left=False)
    axes.xaxis.label.set_fontsize(FONT_SIZE)
    axes.set_axisbelow(True)
    return figure, axes


def _layer_axes(layers: Sequence[str], num_groups: int) -> tuple[Figure, Axes]:
    longest = max(map(len, map(_short, layers)), default=1)
    height = len(layers) * (16 * num_groups + 10)
    return _axes(400, height + 46, left=12 + 0.6 * FONT_SIZE * longest, bottom=42)


def _layer_axis(axes: Axes, layers: Sequence[str]) -> None:
    """Layers from top to bottom, a count from zero to the right."""
    # parse_math: a name with dollar signs is text, not a formula.
    axes.set_yticks(range(len(layers)), [_short(layer) for layer in layers], parse_math=False)
    axes.tick_params(axis="y", labelcolor=COLOURS["ink"])
    axes.set_ylim(len(layers) - 0.5, -0.5)
    axes.set_xlim(0, max(axes.get_xlim()[1], 1e-9) if axes.dataLim.x1 > 0 else 1)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}" if x >= 10 else f"{x:g}"))
    axes.grid(axis="x", color=COLOURS["grid"])


def _short(name: str) -> str:
    """For an axis: one line, of characters that XML allows."""
    name = "".join(letter if letter.isprintable() else " " for letter in name)
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _apart(labels: list[tuple[float, str]], least: float) -> list[tuple[float, str]]:
    """Heights of labels, moved up where two would touch."""
    placed: list[tuple[float, str]] = []
    for height, name in sorted(labels):
        placed.append((max(height, placed[-1][0] + least) if placed else height, name))
    return placed


def _svg(figure: Figure, name: str, label: str) -> Markup:
    """Inline SVG without size, date, style sheet or an id that another figure of the page could have. name: unique on a page."""
    text = StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        # The browser has glyphs that Matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        # Not savefig, which draws everything twice. Untyped in some releases of Matplotlib.
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(text, metadata={"Date": None})
    root = ElementTree.fromstring(text.getvalue())
    referenced = {first or second for first, second in re.findall(r"\(#([\w-]+)\)|\"#([\w-]+)\"", text.getvalue())}
    box = root.get("viewBox", "0 0 1 1")
    svg = ElementTree.Element("svg", {"class": "figure", "viewBox": box, "role": "img", "aria-label": label})
    svg.set("style", f"max-width:{float(box.split()[2]):g}px")
    for child in root:
        svg.extend(_plain(child, name, referenced))
    return Markup(ElementTree.tostring(svg, encoding="unicode"))


def _plain(element: ElementTree.Element, prefix: str, referenced: set[str]) -> list[ElementTree.Element]:
    """The drawing alone: local names, prefixed ids where referenced, variables for colours, no groups without a meaning."""
    tag = element.tag.rpartition("}")[2]
    if tag in ("metadata", "style") or element.get("style", "").endswith("opacity: 0"):
        return []
    made = ElementTree.Element(tag)
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
