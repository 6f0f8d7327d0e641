"""Numbers as a report writes them."""

from typing import Any

Numbers = dict[str, Any]
DASH = "–"
SPACE = "\N{NO-BREAK SPACE}"
# How sentences and charts call the networks of `attack.settings.TARGETS`; their tones are the names themselves.
NETWORKS = {"ann": "ANN", "snn": "float SNN", "quantised": "quantised SNN", "deployed": "deployed network"}


def percent(share: Numbers | float) -> str:
    """A share as `98.9 %`; a proportion of report.json or a number in [0, 1]."""
    value = share["value"] if isinstance(share, dict) else share
    return f"{100 * value:.1f}{SPACE}%"


def interval(share: Numbers) -> str:
    return f"{100 * share['low']:.1f}{DASH}{100 * share['high']:.1f}"


def count(value: float) -> str:
    """Whole numbers and large means without decimals, small means with three digits."""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.3g}"


def small(share: float) -> str:
    """A small share in per cent, two digits: `0.39 %`."""
    return f"{100 * share:.2g}{SPACE}%"


def energy(joule: float, unit: tuple[str, float]) -> str:
    """Three digits in the table's unit, without the unit."""
    value = joule / unit[1]
    return "0" if value == 0 else f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def change(value: float, base: float) -> str:
    """Relative change with its sign; a dash where the base is zero."""
    return DASH if base == 0 else signed(100 * (value / base - 1)) + f"{SPACE}%"


def signed(value: float) -> str:
    text = f"{value:+.1f}"
    return ("0.0" if text in ("+0.0", "-0.0") else text).replace("-", "\N{MINUS SIGN}")
