"""Physical quantities as people read them: three digits and a decimal prefix."""

from collections.abc import Sequence

MINUS = "\N{MINUS SIGN}"
PREFIXES = (
    (1e12, "T"),
    (1e9, "G"),
    (1e6, "M"),
    (1e3, "k"),
    (1.0, ""),
    (1e-3, "m"),
    (1e-6, "µ"),
    (1e-9, "n"),
    (1e-12, "p"),
)


def si(value: float, unit: str) -> str:
    """`28.1 µJ`; `0 J`; below 0 with a real minus sign, as idle power taken from a measurement may be."""
    return MINUS + si(-value, unit) if value < 0 else si_range((value, value), unit)


def si_range(values: Sequence[float], unit: str) -> str:
    """Lowest to highest with the prefix of the highest: `28.1 to 36.5 µJ`; one number where they look the same. values: >= 0."""
    low, high = min(values), max(values)
    size, prefix = next((one for one in PREFIXES if float(f"{high:.3g}") >= one[0]), PREFIXES[-1])
    if high == 0:
        return f"0 {unit}".rstrip()
    shown = [_digits(value / size) for value in (low, high)]
    return f"{' to '.join(dict.fromkeys(shown))} {prefix}{unit}".rstrip()


def _digits(value: float) -> str:
    return "0" if value == 0 else f"{value:,.0f}" if float(f"{value:.3g}") >= 100 else f"{value:#.3g}".rstrip(".")
