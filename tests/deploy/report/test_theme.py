"""Colours of charts: legible on both papers, and apart for readers of any colour vision."""

from itertools import combinations

import numpy as np
import pytest
from report_example import contrast

from hardspike.deploy.report.chart import TONES
from hardspike.deploy.report.draw_grids import FULL_SHADE, NEGATIVE, POSITIVE
from hardspike.deploy.report.theme import COLOURS, css_variables

# Severity 1.0 in linear RGB: Machado, Oliveira and Fernandes 2009, table 1.
VISIONS = {
    "normal": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritan": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = np.array([0.95047, 1.0, 1.08883])


def linear(colour: str) -> np.ndarray:
    values = np.array([int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(colour: str, vision: str) -> np.ndarray:
    xyz = TO_XYZ @ (VISIONS[vision] @ linear(colour)).clip(0, 1) / WHITE
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("dark", [False, True])
def test_tones_stand_out_from_the_paper_and_texts_from_the_shades(dark: bool) -> None:
    scheme = {name: colours[dark] for name, colours in COLOURS.items()}
    for tone in TONES:
        assert contrast(scheme[tone], scheme["paper"]) >= 3, tone
    for text in ("ink", "soft"):
        assert contrast(scheme[text], scheme["paper"]) >= 4.5
    for tone in (POSITIVE, NEGATIVE):
        mixed = [
            round(
                FULL_SHADE * int(scheme[tone][k : k + 2], 16) + (1 - FULL_SHADE) * int(scheme["paper"][k : k + 2], 16)
            )
            for k in (1, 3, 5)
        ]
        assert contrast(scheme["ink"], "#" + "".join(f"{value:02x}" for value in mixed)) >= 4.5, tone


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("vision", VISIONS)
def test_tones_of_one_chart_differ_for_every_colour_vision(dark: bool, vision: str) -> None:
    for start in range(0, len(TONES), 4):
        for one, other in combinations(TONES[start : start + 4], 2):
            colours = (lab(COLOURS[name][dark], vision) for name in (one, other))
            assert np.linalg.norm(next(colours) - next(colours)) >= 18, (one, other)


def test_css_names_every_colour_of_its_scheme() -> None:
    for dark in (False, True):
        given = dict(part.strip().split(": ") for part in css_variables(dark=dark).rstrip(";").split(";"))
        assert given == {f"--{name}": colours[dark] for name, colours in COLOURS.items()}
    assert set(TONES) <= COLOURS.keys()
