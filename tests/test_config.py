import hashlib
from dataclasses import replace

import pytest
from omegaconf import OmegaConf

from icsbench.config import Config, TrackerConfig, WandbConfig, options_of, resolve
from icsbench.errors import IcsbenchError
from icsbench.record.writer import load_config


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 7},
        {"batch_size": 9},
        {"log_every": 3},
        {"eval_every": 3},
        {"deterministic": True},
        {"amp": True},
        {"norm": options_of("norm", "noisy_bn")},
        {"norm": options_of("norm", momentum=0.25)},
        {"optim": options_of("optim", lr=0.5)},
    ],
)
def test_what_changes_the_numbers_changes_the_fingerprint(change):
    assert replace(Config(), **change).fingerprint != Config().fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 5},
        {"results": "elsewhere"},
        {"experiment": "other"},
        {"device": "cpu"},
        {"threads": 3},
        {"checkpoint_every": 1},
        {"wandb": WandbConfig(mode="disabled")},
        {"tracker": TrackerConfig("tensorboard")},
    ],
)
def test_what_does_not_change_the_numbers_keeps_the_fingerprint(change):
    assert replace(Config(), **change).fingerprint == Config().fingerprint


def test_the_fingerprint_is_the_same_in_every_process_and_version():
    assert Config().fingerprint == "44136fa355"  # SHA-256 of "{}": nothing differs from the defaults
    assert replace(Config(), steps=7).fingerprint == hashlib.sha256(b'{"steps": 7}').hexdigest()[:10]


def test_yaml_round_trip(tmp_path):
    config = replace(Config(), steps=77, norm=options_of("norm", "noise", n_mu=0.25), seed=3)
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    assert load_config(path) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps must be at least 1 (got 0)"),
        ({"steps": "abc"}, "'abc' of type 'str' could not be converted to Integer (key steps)"),
        ({"optim": {"lr": float("nan")}}, "optim.lr must be greater than 0 (got nan)"),
        ({"optim": {"lr": 0}}, "optim.lr must be greater than 0 (got 0.0)"),
        ({"model": {"width": 100}}, "model.width must be at least 0.015625 and at most 16 (got 100.0)"),
        ({"model": {"init": "xavier"}}, "model.init must be one of glorot, he, torch, gaussian (got 'xavier')"),
        ({"norm": {"name": "noise", "n_sigma": 0.5}}, "norm.n_sigma must be at least 1 (got 0.5)"),
        ({"sede": 1}, "unknown key 'sede'; did you mean 'seed'?"),
        ({"optim": {"learning_rate": 1}}, "unknown key 'optim.learning_rate'"),
        ({"data": {"val_size": 1}}, "data.val_size must be 0 or at least 2 (got 1)"),
        ({"optim": {"momentum": 1}}, "optim.momentum must be at least 0 and at most 0.9999 (got 1.0)"),
        ({"seed": -1}, "seed must be at least 0 and at most 2147483647 (got -1)"),
        ({"results": ""}, "results must name a folder"),
        ({"device": "tpu"}, "device must be one of auto, cpu, cuda, mps (got 'tpu')"),
        ({"experiment": "../up"}, "experiment must be a plain folder name"),
    ],
)
def test_bad_values_are_one_clear_line(values, message):
    with pytest.raises(IcsbenchError) as caught:
        resolve(OmegaConf.create(values))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "- 1\n- 2\n", "a: [", "\x00\x01"])
def test_a_damaged_config_file_is_one_clear_line(tmp_path, content):
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(IcsbenchError, match=r"config\.yaml"):
        load_config(path)
