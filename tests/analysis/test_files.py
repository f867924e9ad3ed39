import os
import time

from synthetic import write_study

from icsbench.analysis.files import Drawn
from icsbench.analysis.results import load_runs


def drawn(root, out):
    return Drawn(out, load_runs(root))


def test_figures_are_drawn_again_only_when_something_changed(tmp_path):
    root, out = tmp_path / "results", tmp_path / "figures"
    write_study(root)
    out.mkdir()
    (out / "a.pdf").write_text("drawn")
    assert drawn(root, out).read() is None
    drawn(root, out).note([out / "a.pdf"], ["one left out"])
    later = time.time_ns() + 10**9
    os.utime(out / "a.pdf", ns=(later, later))
    assert drawn(root, out).read() == ([out / "a.pdf"], ["one left out"])

    changed = next(root.rglob("metrics.jsonl"))
    os.utime(changed, ns=(later + 1, later + 1))
    assert drawn(root, out).read() is None
    os.utime(changed, ns=(0, 0))
    assert drawn(root, out).read() is not None

    (out / "a.pdf").rename(out / "b.pdf")
    assert drawn(root, out).read() is None
    (out / "b.pdf").rename(out / "a.pdf")
    one = next(root.rglob("seed-0"))
    one.rename(one.with_name("seed-77"))
    assert drawn(root, out).read() is None
    (out / ".drawn.json").write_text("{")
    assert drawn(root, out).read() is None
