"""The gate of a redesign: what the numbers of a run and the pages made of records must not do is move.

    python scripts/gate.py BASE            compare the working tree with commit BASE
    python scripts/gate.py BASE read       the reading half alone; ``train``: the training half

Both trees train the same short runs (every norm on every model with no probes, shift and all; amp, other optimizer
settings, a run killed with SIGKILL and resumed), and both draw, judge and report the same records, which BASE wrote.
Compared byte for byte: names of run folders (fingerprints), metrics.jsonl, probe files, tensors of checkpoints, and
every file of figures, tables, claims and report. Exits 1 and names what differs. Takes some ten minutes on two cores.
"""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NORMS = "none,bn,noisy_bn,noise,l1,l2,linf"
SHORT = (
    *("threads=1", "device=cpu", "wandb=disabled", "hydra/launcher=basic", "seed=1"),
    *("steps=6", "log_every=2", "eval_every=3", "checkpoint_every=4", "recalibration_batches=2"),
)
PROBES = {
    "none": ("probes=none",),
    "shift": ("probes=shift", "probes.every=3", "probes.batch_size=16", "probes.samples=64"),
    "all": (
        *("probes=all", "probes.every=3", "probes.batch_size=16", "probes.samples=64"),
        *("probes.update_every=3", "probes.alpha_points=3"),
    ),
}
MODELS = {
    **{f"vgg{depth}": ("model.width=0.03125", "batch_size=16") for depth in (11, 13, 16, 19)},
    "mlp": ("data=digits8", "model=mlp", "batch_size=16"),
    "dln": ("data=gaussian", "model=dln", "batch_size=1000", "optim.lr=1e-6"),
}
OTHERS = (
    ("model=vgg11", *MODELS["vgg11"], *PROBES["all"], f"norm={NORMS}", "amp=true"),
    ("model=vgg11", *MODELS["vgg11"], *PROBES["shift"], "norm=noisy_bn", "norm.strength=0,2", "optim.momentum=0.9"),
    (
        *("model=vgg13", *MODELS["vgg13"], *PROBES["none"], "norm=bn,noise", "optim.schedule=cosine"),
        *("optim.weight_decay=0.01", "model.head=512-512", "model.head_norm=true", "model.init=torch,he,gaussian"),
    ),
    ("model=vgg11", *MODELS["vgg11"], *PROBES["none"], "norm=none,bn", "data.flip=true", "data.crop=true"),
    ("model=resnet20", "model.width=0.25", "batch_size=16", *PROBES["all"], f"norm={NORMS},skipinit,fixup"),
    ("model=residual_mlp", "data=digits8", "batch_size=16", *PROBES["all"], f"norm={NORMS},skipinit,fixup"),
)
KILLED = ("model=vgg11", *MODELS["vgg11"], *PROBES["all"], "norm=noisy_bn", "optim.momentum=0.9", "steps=90")


def train(results: Path) -> None:
    """Every run of the gate, below ``results``."""
    for model, options in MODELS.items():
        for name, probes in PROBES.items():
            _command("sweep", f"model={model}", *SHORT, *options, *probes, f"norm={NORMS}", f"results={results}/{name}")
    for options in OTHERS:
        _command("sweep", *SHORT, *options, f"results={results}/others")
    arguments = ["train", *SHORT[:3], "seed=2", *KILLED, "checkpoint_every=20", f"results={results}/killed"]
    process = subprocess.Popen(
        [sys.executable, "-m", "icsbench", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not [*results.glob("killed/*/*/*/checkpoint.pt")]:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not [*results.glob("killed/*/*/*/summary.json")], "the run ended before it was killed"
    _command(*arguments)


def write_records(folder: Path) -> None:
    """Records for the reading half, of every study and figure, as the tests of this tree make them up."""
    sys.path.insert(0, str(ROOT / "tests"))
    sys.path.insert(0, str(ROOT / "tests" / "report"))
    import numpy as np
    from page import write_records  # pyright: ignore[reportMissingImports]
    from planted import MEASURED, finish, plant_claim  # pyright: ignore[reportMissingImports]
    from synthetic import DLN, MLP, write_study  # pyright: ignore[reportMissingImports]

    random = np.random.default_rng(0)
    for claim in MEASURED:
        values = [np.exp(0.4 * random.standard_normal(6)).tolist() for _ in claim.parts]
        plant_claim(folder / "planted" / claim.id, claim, values)
    write_records(folder / "page")
    three = {"updates": ("ics", "landscape"), "steps": 400}
    write_study(folder / "study", ("none", "bn", "noisy_bn"), 6, **three)
    write_study(folder / "norms", ("none", "bn", "noise", "l1", "l2", "linf"), 3, **three, experiment="lp")
    write_study(folder / "mlp", ("none", "bn"), 3, **MLP)
    write_study(folder / "dln", ("none", "bn", "l1"), 3, **DLN, updates=("ics", "landscape"), steps=400)
    for summary in folder.rglob("summary.json"):  # claims and report refuse a record without its seal
        finish(summary.parent, json.loads(summary.read_text()))


def read(records: Path, out: Path) -> None:
    """Tables, figures, claims and reports of every folder of records."""
    for folder in sorted(path for path in records.iterdir() if path.is_dir()):
        place = out / folder.name
        if folder.name == "planted":
            for claim in sorted(folder.iterdir()):
                _command("claims", str(claim), "--out", str(place / claim.name), say=place / f"{claim.name}.txt")
                _command("claims", "why", claim.name, str(claim), say=place / f"{claim.name}-explained.txt")
            continue
        _command("figures", str(folder), "--out", str(place / "figures"), say=place / "figures.txt")
        _command("claims", str(folder), "--out", str(place / "claims"), say=place / "claims.txt")
        _command("report", str(folder), "--out", str(place / "report.html"), say=place / "report.txt")
        _command("runs", str(folder), say=place / "runs.txt")
    _command("claims", "--list", say=out / "catalogue.txt")


def digests(results: Path, out: Path) -> dict[str, str]:
    """A digest of everything that must not move, by name."""
    import torch

    found = {}
    for path in sorted(path for path in results.rglob("*") if path.is_file()):
        # These two networks no longer have a width that they do not use, and with it another fingerprint.
        place = re.sub(r"-(mlp|dln)(-w0\.125)?(-[^/]*)-[0-9a-f]{10}/", r"-\1\3/", str(path.relative_to(results)))
        name = f"runs/{place}"
        if path.name == "checkpoint.pt":
            state = torch.load(path, weights_only=True)
            found |= {f"{name}: {key}": _digest(value) for key, value in _tensors(state, "")}
        elif path.name == "metrics.jsonl" or "probes" in path.parts:
            found[name] = _digest(path.read_bytes())
    for path in sorted(path for path in out.rglob("[!.]*") if path.is_file()):
        text = path.read_bytes()
        if path.suffix in (".txt", ".html"):  # they name the folder they are written to
            text = text.replace(str(out).encode(), b"OUT")
        found[f"read/{path.relative_to(out)}"] = _digest(text)
    return found


def _tensors(value: object, name: str) -> list[tuple[str, bytes]]:
    if isinstance(value, dict):
        return [found for key, inner in value.items() for found in _tensors(inner, f"{name}/{key}")]
    if isinstance(value, list | tuple):
        return [found for number, inner in enumerate(value) for found in _tensors(inner, f"{name}/{number}")]
    if hasattr(value, "numpy"):
        return [(name, str(value.dtype).encode() + value.detach().cpu().numpy().tobytes())]  # pyright: ignore
    return []


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _command(*arguments: str, say: Path | None = None) -> None:
    """Run the command line in this process; it must succeed, and its output goes to the file ``say``."""
    import contextlib
    import io

    from icsbench.cli import main

    said = io.StringIO()
    sys.argv = ["icsbench", *arguments]
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            main()
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"icsbench {' '.join(arguments)} failed:\n{said.getvalue()}") from end
    if say is not None:
        say.parent.mkdir(parents=True, exist_ok=True)
        say.write_text(said.getvalue())


def main() -> int:
    """Compare this tree with a commit."""
    base, *only = sys.argv[1:]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tree = folder / "tree"
        subprocess.run(["git", "-C", ROOT, "worktree", "add", "--quiet", "--detach", tree, base], check=True)
        try:
            (folder / "records").mkdir()
            _inside(tree, "records", folder / "records").wait()
            sides = [
                _inside(where, "measure", folder / name, folder / "records", *only)
                for name, where in (("base", tree), ("here", ROOT))
            ]
            if any([side.wait() for side in sides]):
                print("one of the two trees could not run the gate; see above")
                return 2
        finally:
            subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", tree], check=True)
        before, after = (json.loads((folder / f"{name}.json").read_text()) for name in ("base", "here"))
    different = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    for name in different:
        print("only before:" if name not in after else "only here:" if name not in before else "differs:", name)
    print(f"{len(before)} compared with {base}: {len(different)} differ")
    return 1 if different else 0


def _inside(tree: Path, *arguments: object) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    script = tree / "scripts" / Path(__file__).name
    script.write_bytes(Path(__file__).read_bytes())  # BASE may have no gate, or another
    return subprocess.Popen([sys.executable, script, *map(str, arguments)], env=environment, cwd=tree)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["records", folder]:
            write_records(Path(folder))
        case ["measure", folder, records, *only]:
            work = Path(folder)
            if not only or "train" in only:
                train(work / "results")
            if not only or "read" in only:
                read(Path(records), work / "out")
            work.with_suffix(".json").write_text(json.dumps(digests(work / "results", work / "out"), indent=1))
        case _:
            sys.exit(main())
