"""The probes of the package keep the contract, and their options are the keys that the configuration has."""

from dataclasses import fields

import pytest
import torch
from networks import small_vgg
from torch.nn import functional as F

from icsbench.config import probes_options
from icsbench.members import members
from icsbench.probes import NetworkWatcher, Probe, UpdateWatcher, start_probes

PROBES = members("probes", Probe)


class Task:
    loss = staticmethod(F.cross_entropy)

    def probe_inputs(self, size):
        return torch.zeros(size, 3, 32, 32)


class Settings:
    seed = 0

    def __init__(self, **probes):
        self.probes = probes_options(**probes)


def started(**probes):
    return start_probes(Settings(**probes), small_vgg("bn", name="vgg11"), Task())


def test_the_options_of_all_probes_are_the_keys_of_the_configuration():
    keys = {f.name: (f.type, f.default) for probe in PROBES.values() for f in fields(probe.options)}
    assert {f.name: (f.type, f.default) for f in fields(probes_options())} == keys
    assert {"shift", "every", "ics", "landscape", "update_every"} < keys.keys()


@pytest.mark.parametrize(
    "wrong",
    [
        *({"every": 1}, {"batch_size": 1}, {"samples": 1}, {"update_every": 0}),
        *({"alpha_low": 0.0}, {"alpha_high": 0.1}, {"alpha_points": 1}),
    ],
)
def test_bad_options_have_the_line_of_the_configuration(wrong):
    with pytest.raises(ValueError, match=r"^probes\.") as expected:
        probes_options(**wrong)
    (probe,) = (probe for probe in PROBES.values() if {*wrong} <= {f.name for f in fields(probe.options)})
    with pytest.raises(ValueError, match=r"^probes\.") as found:
        probe.options(**wrong)
    assert str(found.value) == str(expected.value)


def test_a_probe_is_started_where_its_switch_is_on():
    assert [name for name, _ in started()] == ["shift"]
    assert [name for name, _ in started(shift=False)] == []
    assert [name for name, _ in started(shift=False, landscape=True)] == ["ics"]
    everything = started(ics=True, landscape=True)
    assert [name for name, _ in everything] == ["shift", "ics"]
    assert isinstance(everything[0].watcher, NetworkWatcher)
    assert isinstance(everything[1].watcher, UpdateWatcher)


def test_probes_are_due_as_the_options_say():
    shift, update = (watcher for _, watcher in started(ics=True, every=5, update_every=3))
    assert [step for step in range(12) if shift.due(step)] == [0, 1, 2, 4, 5, 8, 9, 10]
    assert [step for step in range(12) if update.due(step)] == [0, 3, 6, 9]
