"""Charts as inline SVG: one drawing for light and dark, with what it shows as a text for those who do not see it."""

from functools import lru_cache
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from markupsafe import Markup

from hardspike.deploy.report.alternative import alternative
from hardspike.deploy.report.axes_text import WIDTHS
from hardspike.deploy.report.chart import BarChart, Chart, Histogram, LineChart, Matrix
from hardspike.deploy.report.draw_bars import draw_bars, draw_histogram
from hardspike.deploy.report.draw_grids import draw_matrix, draw_pictures
from hardspike.deploy.report.draw_lines import draw_lines
from hardspike.deploy.report.svg import LINE, canvas, fitted, label


def draw(chart: Chart, *, keyed: bool = True) -> Markup:
    """The chart as `<svg class="figure">`, coloured by the variables of `theme.css_variables`; its name must be unique on a page.

    Small charts carry their title, since they stand in rows; for others the page writes it. keyed: with the names of the series,
    where there are more than one; False where the page has them beside it.
    """
    return Markup(_text(chart, keyed))


def drawing(chart: Chart) -> Element:
    """The same as elements, with the names of the series."""
    return ElementTree.fromstring(_text(chart, True))


# A page and the files beside it show the same charts, and charts never change.
@lru_cache(maxsize=128)
def _text(chart: Chart, keyed: bool) -> str:
    title = fitted(chart.title, 0.94 * WIDTHS["small"], 2) if chart.width == "small" else []
    made = [label(text, 0, 13 + LINE * at, tone="ink", bold=True) for at, text in enumerate(title)]
    top = LINE * len(title) + 8 if title else 0.0
    if isinstance(chart, LineChart):
        width, height, drawn = draw_lines(chart, top=top, keyed=keyed)
    elif isinstance(chart, BarChart):
        width, height, drawn = draw_bars(chart, top=top, keyed=keyed)
    elif isinstance(chart, Histogram):
        width, height, drawn = draw_histogram(chart, top=top, keyed=keyed)
    elif isinstance(chart, Matrix):
        width, height, drawn = draw_matrix(chart, top=top)
    else:
        width, height, drawn = draw_pictures(chart, top=top)
    svg = canvas(width, height, alternative(chart), [*made, *drawn])
    return ElementTree.tostring(svg, encoding="unicode")
