"""Grids: matrices of numbers in shaded cells, and small pictures with their titles."""

import math
from collections.abc import Sequence
from xml.etree.ElementTree import Element

from hardspike.deploy.report.axes_text import MINUS, ROW, SLOPE, WIDTHS, every, number
from hardspike.deploy.report.chart import Matrix, Picture, Pictures
from hardspike.deploy.report.png import heat_uri, image_uri
from hardspike.deploy.report.svg import LINE, box, fitted, label, paragraph, plain_text, shape, text_width

# Of the tone over the paper: the full shade still leaves contrast for numbers in ink, in light and dark.
FULL_SHADE = 0.55
POSITIVE, NEGATIVE = "snn", "deployed"
CELL_HEIGHT = 26.0
WIDEST_CELL = 92.0
SMALLEST_PICTURE, LARGEST_PICTURE = 56.0, 150.0
GAP = 10.0


def draw_matrix(chart: Matrix, *, top: float) -> tuple[float, float, list[Element]]:
    """Width, height and drawing. top: pixels left free above."""
    width = WIDTHS[chart.width]
    most_left = 0.4 * width
    rows = [" ".join(fitted(name, most_left)) for name in chart.rows]
    texts = _cell_texts(chart)
    corner = " ".join(fitted(chart.row_label, most_left))
    left = 10 + max(map(text_width, [corner, *rows]))
    cell = min(WIDEST_CELL, (width - left - 2) / max(1, len(chart.columns)))
    titles = [fitted(name, cell - 4, 2) for name in chart.columns]
    level = all(
        " ".join(title) == " ".join(plain_text(n, 200).split()) for title, n in zip(titles, chart.columns, strict=True)
    )
    if level:
        kept, head = 1, ROW + LINE * (max(map(len, titles), default=1) - 1)
    else:
        titles = [[plain_text(name, 24)] for name in chart.columns]
        # The last title leans beyond its column.
        lean = math.cos(SLOPE) * text_width(titles[-1][0])
        cell = min(WIDEST_CELL, (width - left - lean + 6) / max(1, len(titles) - 0.5))
        kept, head = every(cell), 8 + math.sin(SLOPE) * max(text_width(title) for (title,) in titles)
    row_height = CELL_HEIGHT if len(rows) <= 24 else 16.0
    above = top + ROW + head
    made = [
        label(corner, left - 7, above - 6, anchor="end"),
        label(" ".join(fitted(chart.column_label, width - left)), left, top + 0.65 * ROW),
    ]
    for index, title in enumerate(titles):
        x = left + (index + 0.5) * cell
        if level:
            made += paragraph(title, x, above - 6 - LINE * (len(title) - 1), tone="ink", anchor="middle")
        elif index % kept == 0:
            made.append(label(title[0], x, above - 5, tone="ink", rotate=-math.degrees(SLOPE)))
    darkest = chart.darkest or max((abs(v) for values in chart.values for v in values if v is not None), default=0.0)
    shown = max((text_width(text) for line in texts for text in line), default=0) + 4 <= cell
    for at, (name, values) in enumerate(zip(rows, chart.values, strict=True)):
        y = above + at * row_height
        made.append(label(name, left - 7, y + row_height / 2 + 4, tone="ink", anchor="end"))
        for index, value in enumerate(values):
            x = left + index * cell
            made.append(box(x + 0.5, y + 0.5, cell - 1, row_height - 1, _shade(value, darkest)))
            if shown or value is None:
                tone = "soft" if value is None else "ink"
                made.append(label(texts[at][index], x + cell / 2, y + row_height / 2 + 4, tone=tone, anchor="middle"))
    height = above + max(1, len(rows)) * row_height
    key, used = _scale_key(chart, left, height + 8, darkest, width)
    return width, height + 8 + used, made + key


def draw_pictures(chart: Pictures, *, top: float) -> tuple[float, float, list[Element]]:
    width = WIDTHS[chart.width]
    rows = [fitted(name, 0.22 * width, 3) for name in chart.rows]
    left = 10 + max(text_width(text) for lines in rows for text in lines) if any(rows) else 0.0
    count = max(1, len(chart.columns))
    cell = min(LARGEST_PICTURE, max((width - left) / count - GAP, 1.0))
    made: list[Element] = []
    y = top
    if any(chart.columns):
        titles = [fitted(name, cell + GAP / 2, 3) for name in chart.columns]
        lines = max(map(len, titles))
        for index, title in enumerate(titles):
            base = y + (lines - len(title)) * LINE + 12
            made += paragraph(title, left + index * (cell + GAP), base, tone="ink")
        y += LINE * lines + 8
    for name, pictures in zip(rows, chart.pictures, strict=True):
        tall = max((cell * _aspect(picture) for picture in pictures if picture is not None), default=ROW)
        made += paragraph(name, 0, y + max(12.0, tall / 2 + 4 - LINE / 2 * (len(name) - 1)), tone="ink")
        notes = 0
        for index, picture in enumerate(pictures):
            x = left + index * (cell + GAP)
            if picture is None:
                made.append(label("–", x + cell / 2, y + tall / 2 + 4, anchor="middle"))
                continue
            made += _picture(picture, x, y, cell)
            note = fitted(picture.note, cell + GAP / 2, 3)
            made += paragraph(note, x, y + tall + 13)
            notes = max(notes, len(note))
        y += tall + LINE * notes + GAP + (4 if notes else 0)
    if any(p is not None and p.look == "heat" for pictures in chart.pictures for p in pictures):
        y += 4
        ramp = heat_uri([[step / 63 for step in range(64)]])
        made += [label("0", left, y + 11), label("1", left + 92, y + 11)]
        made.append(shape("image", x=left + 11, y=y + 1, width=76, height=11, preserveAspectRatio="none", href=ramp))
        y += ROW
    return width, max(y, top + ROW), made


def _cell_texts(chart: Matrix) -> list[list[str]]:
    """All with the same decimals, so that they can be compared by eye."""
    unit = 100 if chart.percent else 1
    values = [unit * value for row in chart.values for value in row if value is not None]
    decimals = _decimals(values, percent=chart.percent)
    return [["–" if v is None else _decimal(unit * v, decimals) for v in row] for row in chart.values]


def _decimals(values: Sequence[float], *, percent: bool) -> int:
    """None for whole numbers, else so many that the largest has three digits."""
    largest = max(map(abs, values), default=0.0)
    if largest == 0 or all(value == int(value) for value in values):
        return 0
    return 1 if percent else min(6, max(0, 2 - math.floor(math.log10(largest)) - (largest < 1)))


def _decimal(value: float, decimals: int) -> str:
    text = f"{value:,.{decimals}f}"
    return text.replace("-", "" if float(text.replace(",", "")) == 0 else MINUS)


def _shade(value: float | None, darkest: float) -> str:
    if value is None:
        return "fill: none; stroke: var(--grid)"
    share = min(1.0, abs(value) / darkest) if darkest > 0 else 0.0
    # Without any shade a cell would not look like one.
    return (
        f"fill: var(--{POSITIVE if value >= 0 else NEGATIVE}); fill-opacity: {0.04 + (FULL_SHADE - 0.04) * share:.3f}"
    )


def _scale_key(chart: Matrix, left: float, top: float, darkest: float, width: float) -> tuple[list[Element], float]:
    """What a shade means: small cells from the lowest to the full shade, with both ends in numbers."""
    signed = any(v is not None and v < 0 for values in chart.values for v in values)
    steps = [share / 4 for share in range(-4 if signed else 0, 5)]
    first, last = (number(share * darkest, percent=chart.percent) for share in (steps[0], steps[-1]))
    y = top + 13
    title = " ".join(fitted(chart.value_label, width))
    made, x = [label(title, 0, y)], text_width(title) + 14
    needed = text_width(first + last) + 14 * len(steps) + 20
    if x + needed > width:
        x, y = 0.0, y + ROW
    made.append(label(first, x, y))
    x += text_width(first) + 4
    for share in steps:
        made.append(box(x, y - 9, 13, 11, _shade(share or 0.0, 1.0) + "; stroke: var(--rule); stroke-width: 0.5"))
        x += 14
    made.append(label(last, x + 5, y))
    return made, y + 8 - top


def _picture(picture: Picture, x: float, y: float, cell: float) -> list[Element]:
    height = cell * _aspect(picture)
    layers: list[tuple[str, str]] = []
    if picture.look == "heat":
        layers += [(image_uri(picture.under), "")] if picture.under else []
        layers.append((heat_uri(picture.values[0]), "; opacity: 0.6" if picture.under else ""))
    else:
        layers.append((image_uri(picture.values), ""))
    made = [
        shape(
            "image",
            x=x,
            y=y,
            width=cell,
            height=height,
            preserveAspectRatio="none",
            href=uri,
            style=f"image-rendering: pixelated{style}",
        )
        for uri, style in layers
    ]
    return [*made, box(x, y, cell, height, "fill: none; stroke: var(--rule)")]


def _aspect(picture: Picture) -> float:
    shown = picture.under or picture.values
    return len(shown[0]) / len(shown[0][0])
