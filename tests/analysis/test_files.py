import pytest
from synthetic import write_study

from icsbench.analysis.files import Drawn
from icsbench.record.reader import load_runs


def drawn(root, out):
    return Drawn(out, root, load_runs(root))


def test_figures_are_drawn_again_only_when_something_changed(tmp_path):
    root, out = tmp_path / "results", tmp_path / "figures"
    write_study(root)
    out.mkdir()
    (out / "a.pdf").write_text("drawn")
    assert drawn(root, out).read() is None
    drawn(root, out).note([out / "a.pdf"], ["one left out"])
    assert drawn(root, out).read() == ([out / "a.pdf"], ["one left out"])
    assert str(tmp_path) not in (out / ".drawn.json").read_text()

    changed = next(root.rglob("summary.json"))
    content = changed.read_text()
    changed.write_text(content + " ")
    assert drawn(root, out).read() is None
    changed.write_text(content)
    assert drawn(root, out).read() is not None

    (out / "a.pdf").rename(out / "b.pdf")
    assert drawn(root, out).read() is None
    (out / "b.pdf").rename(out / "a.pdf")
    one = next(root.rglob("seed-0"))
    one.rename(one.with_name("seed-77"))
    assert drawn(root, out).read() is None


@pytest.mark.parametrize("name", ["shift/layers.json", "ours/layers.json", "ours/step-00000003.npz", "ours/deep/a.csv"])
def test_what_any_probe_stored_counts(tmp_path, name):
    root, out = tmp_path / "results", tmp_path / "figures"
    (run, *_) = write_study(root, seeds=1)
    out.mkdir()
    drawn(root, out).note([], [])
    file = run / "probes" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    for content in ("[]", "[ ]"):
        file.write_text(content)
        assert drawn(root, out).read() is None
        drawn(root, out).note([], [])
        assert drawn(root, out).read() is not None
    file.unlink()
    assert drawn(root, out).read() is None


@pytest.mark.parametrize("damaged", ["{", "[]", '{"files": ["a.pdf"]}', '{"files": 3, "said": [], "inputs": ""}'])
def test_a_damaged_note_means_drawing_again(tmp_path, damaged):
    write_study(tmp_path / "results", seeds=1)
    (tmp_path / ".drawn.json").write_text(damaged)
    drawing = drawn(tmp_path / "results", tmp_path)
    assert drawing.read() is None
    drawing.note([], [])
    assert drawing.read() == ([], [])


def test_files_drawn_before_and_not_now_are_removed_and_nothing_else(tmp_path):
    root, out = tmp_path / "results", tmp_path / "figures"
    write_study(root, seeds=1)
    out.mkdir()
    for name in ("old.pdf", "new.pdf", "mine.txt"):
        (out / name).write_text("")
    (tmp_path / "outside.txt").write_text("")
    drawn(root, out).note([out / "old.pdf", out / ".." / "outside.txt"], [])
    drawn(root, out).note([out / "new.pdf"], [])
    assert sorted(path.name for path in out.iterdir()) == [".drawn.json", "mine.txt", "new.pdf"]
    assert (tmp_path / "outside.txt").exists()
