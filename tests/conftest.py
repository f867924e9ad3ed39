"""What every test starts from: one thread (bit-identical, and fast beside other processes), and no W&B account."""

import os
import sys

import pytest

os.environ["OMP_NUM_THREADS"] = "1"

import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    yield
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()  # or it would remember the environment
