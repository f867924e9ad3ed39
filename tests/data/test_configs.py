import hydra
import pytest
from omegaconf import OmegaConf

from icsbench.app.folders import CONFIG_DIR

IMAGES = {"binary": False, "flip": False, "crop": False, "order": "reshuffle", "classes_per_batch": 1}
DIGITS8 = {"name": "digits8", "root": None, "val_size": 157, **IMAGES}
MNIST = {"name": "mnist", "root": "data", "val_size": 5000, **IMAGES}


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("digits8", DIGITS8),
        ("mnist", MNIST),
        ("gaussian", {"name": "gaussian", "root": None, "val_size": 0}),
        ("percentiles/demo", {**DIGITS8, "binary": True}),
        ("percentiles/cpu", {**MNIST, "binary": True}),
        ("percentiles/paper", {**MNIST, "binary": True}),
    ],
)
def test_an_option_is_composed_into_the_data(option: str, expected: dict):
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        composed = hydra.compose("train", [f"data={option}"])
    assert OmegaConf.to_container(composed.data) == expected


@pytest.mark.parametrize("name", ["digits", "digits8", "cifar10", "cifar100", "mnist"])
def test_all_images_can_be_made_binary(name: str):
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        composed = hydra.compose("train", ["experiment=percentiles", "scale=cpu", f"data={name}", "data.binary=true"])
    assert (composed.data.name, composed.data.binary) == (name, True)
