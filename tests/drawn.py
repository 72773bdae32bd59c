"""What a figure shows when it is drawn: its texts and where they are, its intervals and reference lines."""

import warnings
from itertools import combinations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.legend import Legend
from matplotlib.text import Text

PIXELS = 400
"""Width at which every text must be legible."""


class Drawn:
    """A figure that was drawn once; warnings, such as those of missing glyphs, are errors."""

    def __init__(self, figure):
        self.figure = figure
        canvas = FigureCanvasAgg(figure)
        texts, draw = [], Text.draw

        def recorded(text, renderer, *args, **options):
            if text.get_visible() and text.get_text().strip():
                texts.append(text)
            return draw(text, renderer, *args, **options)

        Text.draw = recorded
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                canvas.draw()
        finally:
            Text.draw = draw
        renderer = canvas.get_renderer()
        self.boxes = [(text, text.get_window_extent(renderer)) for text in dict.fromkeys(texts)]
        self.texts = [text.get_text() for text, _ in self.boxes]

    def named(self, gid):
        return [artist for artist in self.figure.findobj() if artist.get_gid() == gid]

    @property
    def references(self):
        """Values and labels of the reference lines."""
        lines = [line for line in self.named("reference") if not isinstance(line, Text)]
        values = [next(iter(set(x if len(set(x)) == 1 else y))) for line in lines for x, y in [line.get_data()]]
        return values, [text.get_text() for text in self.named("reference") if isinstance(text, Text)]

    def intervals(self, *, vertical=False):
        """Return (low, value, high) of everything that has an interval."""
        found = []
        for whiskers, line in zip(self.named("interval"), self.named("value"), strict=True):
            ends = np.array([path.vertices for path in whiskers.get_paths()])[:, :, int(vertical)]
            found += [
                (low, value, high) for (low, high), value in zip(ends, line.get_data()[int(vertical)], strict=True)
            ]
        return found


def assert_legible(drawn):
    """No text covers another or what is plotted, none is cut off, and all can be read at 400 pixels."""
    whole = drawn.figure.bbox
    inner = [(text, box.padded(-1)) for text, box in drawn.boxes]
    for (one, a), (other, b) in combinations(inner, 2):
        assert not a.overlaps(b), (one.get_text(), other.get_text())
    for text, box in inner:
        assert whole.x0 <= box.x0, text.get_text()
        assert box.x1 <= whole.x1, text.get_text()
        assert whole.y0 <= box.y0, text.get_text()
        assert box.y1 <= whole.y1, text.get_text()
        assert text.get_fontsize() / 72 * PIXELS / drawn.figure.get_figwidth() > 8.5, text.get_text()
        if text.get_gid() != "inside":
            assert not any(box.overlaps(axis.bbox) for axis in drawn.figure.axes), text.get_text()


def assert_distinct(drawn):
    """Series of the same axes differ by more than their colour."""
    for axis in drawn.figure.axes:
        lines = [line for line in axis.get_lines() if not line.get_label().startswith("_")]
        looks = [(line.get_marker(), line.get_linestyle()) for line in lines]
        assert len(set(looks)) == len(looks)
        legends = axis.findobj(Legend)
        assert all(len(legend.get_texts()) == len(looks) for legend in legends)
