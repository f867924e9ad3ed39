"""How a drawn page looks."""


def assert_texts_apart(figure):
    """No text leaves the page, and no two overlap by more than a pixel."""
    figure.draw_without_rendering()
    texts = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axes in figure.axes:
        texts += [*axes.texts, *_tick_labels(axes.xaxis), *_tick_labels(axes.yaxis)]
    boxes = [(text.get_window_extent(), text) for text in texts if text.get_visible()]
    for position, (box, text) in enumerate(boxes):
        assert min(box.x0, box.y0) >= 0, text
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
        for other, its_text in boxes[position + 1 :]:
            width = min(box.x1, other.x1) - max(box.x0, other.x0)
            height = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert min(width, height) <= 1, (text, its_text)


def _tick_labels(axis):
    """The labels in view: matplotlib keeps some beyond the limits, and does not draw them."""
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    labels = [label for tick in ticks for label in (tick.label1, tick.label2)]
    return [label for label in labels if label.get_visible() and label.get_text()]
