"""What ``icsbench wandb sync`` does: write the summary of a results folder as a W&B run, and upload offline runs."""

import contextlib
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icsbench import reading
from icsbench.errors import IcsbenchError

if TYPE_CHECKING:
    from icsbench.record.reader import Run

_SUMMARIES = ".wandb-summary"
_REACH_TIMEOUT = 10.0
_UPLOAD_TIMEOUT = 600.0


def sync(results: Path) -> None:
    """Upload what lies offline below ``results`` and was not uploaded before; print what was done.

    :raises IcsbenchError: W&B is not installed, away or refuses, or something could not be uploaded: what, and why.
    """
    from icsbench.record.reader import load_runs
    from icsbench.report.words import printable

    runs = load_runs(results)
    failed: dict[str, list[str]] = {}
    try:
        summary = write_summary(runs, results)
    except IcsbenchError as error:
        summary = None
        failed[str(error)] = ["the summary"]
    waiting = {run.path: left for run in runs if run.status != "running" and (left := _not_uploaded(run.path))}
    if summary is not None and (left := _not_uploaded(summary)):
        waiting[summary] = left
    if waiting:
        _refuse_if_away()
    uploaded = 0
    for path, fragments in waiting.items():
        why = _upload(fragments)
        uploaded += why is None
        if why is not None:
            failed.setdefault(why, []).append(str(path))
    running = sum(run.status == "running" for run in runs)
    later = f"; {running} still running" if running else ""
    print(f"{uploaded} uploaded, {len(waiting) - uploaded} not{later}" if waiting else f"nothing to upload{later}")
    if failed:
        lines = "\nicsbench: ".join(printable(f"not uploaded: {', '.join(of)}: {why}") for why, of in failed.items())
        raise IcsbenchError(f"{lines}\nicsbench: the same command tries again what was not uploaded")


def write_summary(runs: "Sequence[Run]", results: Path) -> Path | None:
    """Write the W&B run that carries the summary of finished runs, offline, unless it is there.

    It holds one chart of the shift per layer with a line for each regime, every figure as an image, and the verdicts as
    a table. Of runs of one experiment it lies in the group of that experiment.

    :returns: its folder; None where no run is finished.
    :raises IcsbenchError: W&B is not installed or cannot write, or a record is damaged.
    """
    finished = [run for run in runs if run.finished]
    if not finished:
        return None
    digest = hashlib.sha256()
    for run in finished:
        digest.update(str(run.path.relative_to(results)).encode() + (run.path / "summary.json").read_bytes())
    name = f"summary-{digest.hexdigest()[:10]}"
    folder = results / _SUMMARIES / name
    if folder.exists():
        return folder
    partial = folder.with_name(f".{name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        _log_summary(finished, results, partial, name)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _log_summary(runs: "list[Run]", results: Path, folder: Path, name: str) -> None:
    from icsbench.analysis.verdicts import judge

    experiments = sorted({str(run.setting("experiment")) for run in runs})
    verdicts = [verdict for verdict in judge(runs) if verdict.verdict != "not measured"]
    files, _, _ = reading.drawn_files(runs, results, results / "figures")
    figures = {file.relative_to(results / "figures").with_suffix(""): file for file in files if file.suffix == ".png"}
    lines = shift_per_layer(runs)
    wandb = _client()
    from icsbench.tracking.mirror import quiet_processes
    from icsbench.tracking.wandb import settings

    try:
        with quiet_processes():
            log = wandb.init(
                project=runs[0].setting("wandb.project", "icsbench"),
                entity=runs[0].setting("wandb.entity"),
                id=name,
                name=f"summary of {', '.join(experiments)}"[:120],
                group=experiments[0] if len(experiments) == 1 else "summary",
                job_type="summary",
                config={"experiments": experiments, "runs": len(runs)},
                dir=str(folder.absolute()),
                mode="offline",
                settings=settings(),
            )
        content: dict[str, Any] = {f"figures/{name.as_posix()}": wandb.Image(str(f)) for name, f in figures.items()}
        content["verdicts"] = wandb.Table(**_verdict_table(verdicts))
        if lines:
            content["shift per layer"] = wandb.plot.line_series(
                xs=[[depth for depth, _ in line] for line in lines.values()],
                ys=[[value for _, value in line] for line in lines.values()],
                keys=[*lines],
                title="Shift per layer: Wasserstein-1 distance of one step, mean over steps and seeds",
                xname="layer",
            )
        log.log(content)
        log.finish()
    except Exception as error:
        wandb.teardown()
        raise IcsbenchError(f"W&B could not write it ({type(error).__name__}: {error})") from error


def shift_per_layer(runs: "Sequence[Run]") -> dict[str, list[tuple[int, float]]]:
    """Of each regime (of each group and learning rate, where there are several) the depth and the shift of each layer.

    The shift is the Wasserstein-1 distance between the pre-activations before and after a step, in units of their
    scale: the mean over the steps probed and over the seeds that did not diverge.
    """
    from icsbench.analysis.groups import NotMeasured, group_runs
    from icsbench.analysis.quantities.shift import SHIFT, probed, shift_curve

    groups = [group for group in group_runs(runs) if group.kind == "training"]
    lines: dict[str, list[tuple[int, float]]] = {}
    for group in groups:
        with contextlib.suppress(NotMeasured):
            conditions = probed(group)
            labels = [condition.regime.label for condition in conditions]
            for condition in conditions:
                several = labels.count(condition.regime.label) > len(group.lrs)
                shown = condition.shown.items() if several else ()
                parts = [condition.regime.label, *(f"{key} {value}" for key, value in shown)]
                parts += [f"lr {condition.lr:g}"] if len(group.lrs) > 1 else []
                parts += [group.name] if len(groups) > 1 else []
                curves = {
                    layer.depth: shift_curve(condition, "w1", layer) for layer in condition.runs[0].layers_of(SHIFT)
                }
                lines[", ".join(parts)] = [(depth, float(curve.mean.mean())) for depth, curve in curves.items()]
    return lines


def _verdict_table(verdicts: Sequence[Any]) -> dict[str, list[Any]]:
    from icsbench.report import words

    rows = [
        [
            *(verdict.claim.id, verdict.claim.statement, verdict.claim.by, words.outcome(verdict), verdict.speaks_for),
            *("; ".join(words.effects(verdict)), words.counted(verdict)),
        ]
        for verdict in verdicts
    ]
    return {"columns": ["id", "claim", "by", "verdict", "speaks for", "effect [95 %]", "n"], "data": rows}


def _not_uploaded(folder: Path) -> list[Path]:
    """The offline W&B runs of a record that W&B has not marked as uploaded, those that were begun first first."""
    found = [path for path in folder.glob("wandb/offline-run-*/run-*.wandb") if not _mark(path).exists()]
    return sorted(found, key=lambda path: (path.parent.name, path.stat().st_mtime))


def _mark(path: Path) -> Path:
    return path.with_name(f"{path.name}.synced")


def _client() -> Any:
    from icsbench.tracking.wandb import drop_empty_variables

    drop_empty_variables()
    try:
        import wandb
    except ImportError:
        raise IcsbenchError("W&B is not installed; pip install wandb") from None
    return wandb


def _refuse_if_away() -> None:
    """Ask the server once, as the client would wait for it for hours.

    :raises IcsbenchError: no key is configured, or no server answers.
    """
    from icsbench.tracking.mirror import quiet_processes

    wandb = _client()
    try:
        unheard = io.StringIO()
        with quiet_processes(), contextlib.redirect_stdout(unheard), contextlib.redirect_stderr(unheard):
            address = wandb.setup(wandb.Settings(silent=True)).settings.base_url
            known = wandb.login(prompt=False, verify=False)
            wandb.teardown()
    except Exception as error:
        raise IcsbenchError(f"W&B: {' '.join(str(error).split())}; nothing was uploaded") from None
    if not known:
        raise IcsbenchError(f"W&B: no key for {address}; type wandb login, or set WANDB_API_KEY; nothing was uploaded")
    try:
        urllib.request.urlopen(address, timeout=_REACH_TIMEOUT).close()
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise IcsbenchError(f"W&B: {address} answers {error.code}; nothing was uploaded, try again later") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", error)
        raise IcsbenchError(f"W&B: {address} cannot be reached ({why}); nothing was uploaded") from None


def _upload(fragments: Sequence[Path]) -> str | None:
    """Have W&B's own client upload the offline runs of one record, in their order; returns why it did not."""
    tool = [sys.executable, "-m", "wandb", "sync", "--yes", *(str(path.parent.absolute()) for path in fragments)]
    env = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}  # a process of its own
    with tempfile.TemporaryDirectory() as folder:  # for the client's own log
        try:
            done = subprocess.run(tool, cwd=folder, env=env, capture_output=True, text=True, timeout=_UPLOAD_TIMEOUT)
        except subprocess.TimeoutExpired:
            return f"not uploaded within {_UPLOAD_TIMEOUT:.0f} s"
    if all(_mark(path).exists() for path in fragments):
        return None
    lines = [line for line in done.stderr.splitlines() if "error" in line.lower()]
    said = [line.rpartition("ERROR ")[2] for line in lines if "<no message>" not in line and "error logs" not in line]
    return said[-1] if said else "W&B refused it; is the key that of this server and entity? (wandb login)"
