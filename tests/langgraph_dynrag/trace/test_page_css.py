"""The page's style sheet: both colour schemes are legible, also on the grounds of notebooks."""

import re

import pytest

from langgraph_dynrag.trace.html import style

COLOURS = {
    name: (light, dark) for name, light, dark in re.findall(r"--(\w+): .*?light-dark\((#\w{6}), (#\w{6})\)", style())
}
GROUNDS = {
    "light": [COLOURS["ground"][0], "#f8f8f8"],
    "dark": [COLOURS["ground"][1], "#111111", "#1e1e1e", "#1f1f1f", "#000000"],
}
"""The page's own ground, and those of JupyterLab, VS Code and its high-contrast themes."""


def luminance(colour):
    """Return the relative luminance that WCAG 2 defines."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    brighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def test_contrast_by_hand():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["text", "muted", "link", "warn"])
def test_text_has_enough_contrast_on_each_ground(name, scheme):
    at = ["light", "dark"].index(scheme)
    for ground in [*GROUNDS[scheme], COLOURS["soft"][at]]:
        assert contrast(COLOURS[name][at], ground) >= 4.5, ground


@pytest.mark.parametrize("scheme", [0, 1])
@pytest.mark.parametrize("ground", ["removed", "added"])
def test_marked_text_has_enough_contrast(ground, scheme):
    assert contrast(COLOURS["text"][scheme], COLOURS[ground][scheme]) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["blue", "vermillion", "text"])
def test_bars_marks_and_the_threshold_can_be_told_from_the_ground(name, scheme):
    at = ["light", "dark"].index(scheme)
    assert all(contrast(COLOURS[name][at], ground) >= 3 for ground in GROUNDS[scheme])


def test_every_colour_of_the_sheet_has_both_forms():
    rules = style().partition(".dynrag.dynrag {")[2]
    assert not re.search(r"#[0-9a-f]{3,8}\b|rgb|hsl", rules)
    used = set(re.findall(r"var\(--(\w+)\)", style())) - {"t", "h"}
    assert used == set(COLOURS)


def test_changes_are_not_marked_by_colour_alone():
    sheet = style()
    assert re.search(r"\bdel \{[^}]*line-through", sheet)
    assert re.search(r"\bins \{[^}]*underline", sheet)
    assert re.search(r"\.hit \{[^}]*repeating-linear-gradient", sheet)
