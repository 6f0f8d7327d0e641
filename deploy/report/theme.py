"""The colours of everything that is drawn or written, for light and for dark paper, in one place.

Tones that can meet in one chart stay apart for colour-blind readers too (distance in CIELAB after Machado, Oliveira and Fernandes,
"A physiologically-based model for simulation of color vision deficiency", IEEE TVCG 15, 2009); text is `ink` or `soft`.
"""

SANS = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", Arial, sans-serif'
MONO = 'ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace'
# Name of the CSS variable: light, dark.
COLOURS = {
    "paper": ("#ffffff", "#11151a"),
    "ink": ("#1b2128", "#e4e8ec"),
    "soft": ("#56606b", "#a0aab5"),
    "rule": ("#d5dae0", "#333b45"),
    "grid": ("#e6e9ed", "#262d35"),
    "tint": ("#f5f7f9", "#191f26"),
    "link": ("#0a5aa6", "#7cb8f2"),
    "good": ("#0b6b43", "#56c995"),
    "warn": ("#8a4b00", "#e3a857"),
    "bad": ("#b3162b", "#ff8a8a"),
    "ann": ("#66707c", "#9aa5b1"),
    "snn": ("#0072b2", "#56a8e0"),
    "quantised": ("#8a35d8", "#b06cfa"),
    "deployed": ("#c24a00", "#f08a4b"),
    "clean": ("#0a6f4c", "#5fdcb0"),
    "noise": ("#858f9b", "#87919d"),
    "attack": ("#741058", "#ec48cc"),
    "energy": ("#a06c10", "#e3a351"),
    "first": ("#3438c4", "#7d8bfa"),
    "second": ("#b16e17", "#e9b43b"),
    "third": ("#0a8f96", "#8be8ea"),
    "fourth": ("#5d1466", "#dc4585"),
    "shade": ("#0002", "#fff3"),
}


def css_variables(*, dark: bool) -> str:
    """`--paper: #ffffff; --ink: ...;`, the inside of a CSS rule, without the fonts."""
    return " ".join(f"--{name}: {colours[dark]};" for name, colours in COLOURS.items())
