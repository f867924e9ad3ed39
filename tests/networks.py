"""Networks and norms for tests."""

import types

from icsbench import members as project
from icsbench.config import options_of
from icsbench.members import member, members
from icsbench.models import Model
from icsbench.norms import Norm, Place

NORMS = tuple(members("norms", Norm))
ANYWHERE = tuple(name for name, norm in members("norms", Norm).items() if not norm.residual)
"""The norms of any network, also of one without residual branches."""
OF_MAPS = tuple(name for name, norm in members("norms", Norm).items() if norm.maps)
"""Those among them of networks with feature maps."""


def network(name, regime="none", *, shape=(3, 32, 32), num_classes=10, seed=0, **options):
    """A network of one regime, in float32."""
    norm = member("norms", Norm, regime).bound(options_of("norm", regime))
    build = member("models", Model, name).build
    return build(options_of("model", name, **options), norm, shape=shape, num_classes=num_classes, seed=seed)


def small_vgg(regime="bn", *, name="vgg16", width=1 / 16, seed=0):
    """A narrow VGG of one regime."""
    return network(name, regime, width=width, seed=seed)


def norm_module(regime, features, dimensions, **options):
    """The module that a norm puts behind a transform."""
    bound = member("norms", Norm, regime).bound(options_of("norm", regime, **options))
    transform = object()
    kept, module = bound(transform, Place(0, 2, features, dimensions))
    assert kept is transform
    return module


def register(monkeypatch, room, *found):
    """Make members known, as an installed package would by an entry point of the room."""
    module = types.ModuleType("somebodys")
    vars(module).update({f"MEMBER{number}": member for number, member in enumerate(found)})
    others = project._modules
    monkeypatch.setattr(project, "_modules", lambda of: (*others(of), module) if of == room else others(of))
