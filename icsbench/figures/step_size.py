"""How far the gradient changes with the length of the step along it."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from icsbench.analysis.quantities.optimisation import Profile
from icsbench.figures.panels import draw_curve, extent, limits, log_axis
from icsbench.figures.style import LEGEND_LINE, Page, above, below, beside, legend_rows, regime_handle

_COLUMNS = 3


def draw(profiles: Sequence[Profile], caption: str) -> Figure:
    """The ``profiles``: a panel per step, all with the same two logarithmic axes."""
    steps = sorted({profile.step for profile in profiles})
    legend = legend_rows([regime_handle(regime) for regime in dict.fromkeys(profile.regime for profile in profiles)])
    top, rows, columns = 0.25 + LEGEND_LINE * len(legend), -(-len(steps) // _COLUMNS), min(_COLUMNS, len(steps))
    page = Page(top + 0.42 + 1.5 * rows, caption, top=top, bottom=0.42, left=0.62, right=0.14)
    grid = page.axes(rows, columns, wspace=0.08, hspace=0.24)
    panels = [axes for row in grid for axes in row]
    x, y = extent(*(profile.x for profile in profiles)), limits(profiles)
    for number, (axes, step) in enumerate(zip(panels, steps, strict=False)):
        for profile in profiles:
            if profile.step == step:
                draw_curve(axes, profile)
        log_axis(axes, *y)
        log_axis(axes, *x, "x")
        above(axes, f"step {step:,}")
        if number % columns:
            axes.tick_params(labelleft=False)
        else:
            beside(axes, "‖g′ − g‖", 30)
        if number + columns < len(steps):
            axes.tick_params(labelbottom=False)
        else:
            below(axes, "α")
    for axes in panels[len(steps) :]:
        axes.remove()
    page.legend(*legend)
    return page.figure
