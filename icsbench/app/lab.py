"""``icsbench lab``: a lab on what was typed."""

import csv
import io
from pathlib import Path
from typing import Any

from icsbench.app.compose import composed
from icsbench.app.errors import asking_hydra
from icsbench.app.overrides import as_typed, sweeps
from icsbench.app.progress import Lines, ending, say, who
from icsbench.atomic import write_atomically
from icsbench.errors import IcsbenchError


def check_theorems_of(overrides: list[str], out: Path | None) -> None:
    """Check the theorems on the network of one run: untrained, then as the run leaves it, which is made if need be.

    Prints both reports and writes them to the CSV file ``out`` (default: ``theorems.csv`` in the run's folder).

    :raises IcsbenchError: the overrides, the data, the run or the file, in one line; or the run diverged.
    """
    with asking_hydra():
        overrides = as_typed(overrides)
        for several in filter(sweeps, overrides):
            raise IcsbenchError(f"{several} names several networks; give one")
        config = composed(overrides)
    if config.norm.name not in ("bn", "noisy_bn"):
        raise IcsbenchError(
            f"norm={config.norm.name} has no batch normalization, which the theorems are about; "
            "choose norm=bn or norm=noisy_bn"
        )
    if out is not None and out.is_dir():
        raise IcsbenchError(f"{out} is a folder; --out names a CSV file")
    import torch
    from rich.console import Console

    from icsbench import training
    from icsbench.labs.theorems import check_theorems, print_report, rows
    from icsbench.training import checkpoint
    from icsbench.training.environment import dataset_of
    from icsbench.training.task import Task

    cpu = torch.device("cpu")  # float64 is slow on most GPUs and missing on some
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    dataset = dataset_of(config)
    batch = Task(config, dataset, cpu)
    inputs, targets = batch.batches(0)
    network = training.build_model(config, dataset.num_classes, dataset.train.images[0].numel())
    initial = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    told: list[dict[str, Any]] = []

    def tell(name: str, step: int) -> None:
        reports = check_theorems(network, batch.loss, inputs, targets, initial=initial, seed=config.seed)
        title = f"{config.run_name}, seed {config.seed}, {dataset.label}: {name} (step {step}), batch of {len(inputs)}"
        print_report(Console(), title, reports)
        said = {"run": config.run_name, "seed": config.seed, "data": dataset.label, "network": name, "step": step}
        told.extend(said | row for row in rows(reports))

    tell("untrained", 0)
    summary = training.run(config, show=Lines(config, parent=None))
    say(f"{who(config)}: {ending(summary)}; record {config.run_dir}")
    if summary["diverged_at"] is not None:
        raise IcsbenchError(f"{config.run_dir} diverged, so there is no trained network; try a smaller optim.lr")
    path = config.run_dir / "checkpoint.pt"
    if not path.exists():
        raise IcsbenchError(f"{path} is missing; delete the folder to train the run again")
    network.load_state_dict(checkpoint.load(path, config, cpu)["model"])
    print()
    tell("trained", summary["steps"])

    text = io.StringIO()
    table = csv.DictWriter(text, [*told[0]], lineterminator="\n")
    table.writeheader()
    table.writerows(told)
    out = out or config.run_dir / "theorems.csv"
    write_atomically(out, lambda file: file.write(text.getvalue().encode()))
    print(f"written to {out}")
