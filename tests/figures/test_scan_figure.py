import csv

import pytest
from planted import PLAIN, RATES, SIZES, STRENGTHS, write

from icsbench.analysis.groups import group_runs
from icsbench.figures import draw_scan
from icsbench.figures.style import house_style, save
from icsbench.record.reader import load_runs


def lr_grid(root):
    for lr in RATES:
        for seed in range(3):
            write(root, "lr_grid", "bn", seed, lr=lr)
            write(root, "lr_grid", "none", seed, lr=lr, diverged_at=300 if lr > 0.5 else None)


def dose(root):
    for strength, shift in STRENGTHS.items():
        write(root, "dose", "noisy_bn", 0, strength=strength, mean=shift)


def batch_size(root):
    for size in SIZES:
        write(root, "batch_size", "bn", 0, batch_size=size)


@pytest.mark.parametrize(
    ("records", "panels", "said"),
    [
        (lr_grid, ["training accuracy (%)", "test accuracy (%)", "effective β"], "numbers are in the CSV file|n = 3"),
        (dose, ["training accuracy (%)", "test accuracy (%)"], "placed by the shift"),
        (
            batch_size,
            ["training accuracy (%)", "test accuracy (%)", "training − test (points)"],
            "batch 16, 64 and 256",
        ),
    ],
)
def test_a_scan_is_drawn_with_its_numbers(tmp_path, records, panels, said):
    records(tmp_path)
    (group,) = group_runs(load_runs(tmp_path))
    with house_style():
        figure, rows = draw_scan(group)
        files = save(figure, rows, tmp_path / "scan")
    texts = " ".join(text.get_text() for axes in figure.axes for text in axes.texts)
    assert all(title in texts for title in panels)
    caption = " ".join(text.get_text().replace("\n", " ") for text in figure.texts)
    assert any(words in caption.replace("\N{NO-BREAK SPACE}", " ") for words in said.split("|"))
    with open(files[2], newline="") as file:
        written = list(csv.DictReader(file))
    assert len({row["quantity"] for row in written}) == len(panels)
    assert any(line.get_ydata().max() == pytest.approx(100 * PLAIN["train"]) for line in figure.axes[0].lines[:2])
