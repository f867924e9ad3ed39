"""Networks for tests."""

from dataclasses import asdict

from icsbench.config import NormConfig
from icsbench.models import VGG
from icsbench.norms import build_norm


def small_vgg(regime="bn", *, name="vgg16", width=1 / 16, seed=0):
    """A narrow VGG of one regime."""
    options = asdict(NormConfig(name=regime))

    def make_norm(features, dimensions):
        return build_norm(num_features=features, dimensions=dimensions, **options)

    return VGG(name, 10, make_norm, width=width, seed=seed)
