"""What may import what: one way, and what reads records never needs what trains."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import icsbench
from icsbench.app.folders import CONFIG_DIR

PACKAGE = Path(icsbench.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "configs" not in path.relative_to(PACKAGE).parts
}
TREES = {name: ast.parse(path.read_text(), str(path)) for name, path in MODULES.items()}

# What each part may import of the others; `icsbench` itself (its version) everyone may.
ALLOWED = {
    "__init__": set(),
    "errors": set(),
    "members": {"errors"},
    "options": set(),
    "streams": set(),
    "atomic": set(),
    "source": set(),
    "machine": set(),
    "theory": set(),
    "random_networks": {"streams"},
    "config": {"errors", "members", "options"},
    "record": {"errors", "config", "atomic"},
    "tracking": {"config"},
    "terminal": set(),
    "data": {"errors", "streams"},
    "norms": {"errors", "options"},
    "models": {"streams", "options", "norms"},
    "probes": {"errors", "members", "options", "streams", "norms", "record"},
    "training": {
        *(
            "errors",
            "members",
            "options",
            "atomic",
            "streams",
            "source",
            "machine",
            "config",
            "record",
            "tracking",
            "data",
        ),
        *("norms", "models", "probes"),
    },
    "labs": {
        *("errors", "members", "options", "streams", "source", "machine", "config", "record", "data", "norms"),
        *("models", "probes", "training", "theory", "random_networks"),
    },
    "analysis": {"errors", "members", "atomic", "record"},
    "figures": {"errors", "members", "record", "analysis"},
    "report": {"errors", "source", "record", "analysis", "figures"},
    "doctor": {"errors", "machine", "data"},
    "app": {"errors", "terminal", "atomic", "source", "config", "members", "record", "labs", "training"},
    "reading": {"errors", "terminal", "record", "analysis", "figures", "report"},
    "publishing": {"errors", "reading", "record", "analysis", "report", "tracking"},
    "reproducing": {"errors", "reading", "record", "analysis", "report", "app"},
    "cli": {
        *("errors", "members", "terminal", "reading", "reproducing", "publishing", "labs", "app", "doctor", "record"),
        *("analysis", "report"),
    },
    "__main__": {"cli"},
}
HEAVY = {"torch", "torchvision", "sklearn"}
TRAINS = {"data", "norms", "models", "probes", "training", "labs", "random_networks"}


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names of every module that a tree imports anywhere, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield node.module or ""
            if node.module == "icsbench":
                yield from (f"icsbench.{alias.name}" for alias in node.names)


def part(module: str) -> str:
    return module.split(".")[0]


def parts_imported(module: str) -> set[str]:
    """The other parts of icsbench that a module imports."""
    names = {name.split(".")[1] for name in imported(TREES[module]) if name.startswith("icsbench.")}
    return {name for name in names if name in ALLOWED} - {part(module)}


def reached(name: str) -> set[str]:
    """A part and all that its modules import, directly or not."""
    found, new = set(), {name}
    while new:
        found |= new
        new = set().union(*(parts_imported(module) for module in MODULES if part(module) in new)) - found
    return found


def outside(names: set[str]) -> set[str]:
    """Top-level packages that the modules of some parts import."""
    return {name.split(".")[0] for module, tree in TREES.items() if part(module) in names for name in imported(tree)}


def test_every_part_is_in_the_table():
    assert {part(module) for module in MODULES} == ALLOWED.keys()


def test_the_table_has_no_cycle():
    placed: set[str] = set()
    while left := ALLOWED.keys() - placed:
        free = {name for name in left if ALLOWED[name] <= placed}
        assert free, f"cycle among {sorted(left)}"
        placed |= free


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module):
    assert parts_imported(module) <= ALLOWED[part(module)]


@pytest.mark.parametrize("name", ["errors", "config", "record", "streams", "tracking", "analysis", "figures", "report"])
def test_what_reads_records_does_not_reach_what_trains(name):
    assert not reached(name) & TRAINS
    assert not outside(reached(name)) & HEAVY


def test_the_names_of_a_record_need_nothing():
    assert [*imported(TREES["record.schema"])] == []


def test_the_test_sees_imports():
    assert "torch" in outside({"training"})
    assert reached("training") >= {"data", "norms", "probes", "record", "tracking"}
    assert [*imported(ast.parse("def f():\n from icsbench import data\n import torch.nn"))] == [
        *("icsbench", "icsbench.data", "torch.nn")
    ]


def calls(tree: ast.AST) -> Iterator[tuple[str, dict[str, ast.expr]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {keyword.arg or "**": keyword.value for keyword in node.keywords}


@pytest.mark.parametrize("module", MODULES)
def test_no_code_is_made_of_data(module):
    pool = {"joblib"} if module == "app.batch" else set()  # its processes, and no file
    forbidden = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"} - pool
    assert not forbidden & {name.split(".")[0] for name in imported(TREES[module])}
    for name, keywords in calls(TREES[module]):
        last = name.split(".")[-1]
        assert name not in ("eval", "exec", "compile", "__import__", "instantiate", "hydra.utils.instantiate")
        assert last not in ("unsafe_load", "full_load", "get_class", "get_method") and name != "os.system"
        if name == "torch.load":
            assert ast.unparse(keywords["weights_only"]) == "True"
        if name in ("np.load", "numpy.load"):
            assert ast.unparse(keywords["allow_pickle"]) == "False"
        if name == "yaml.load":
            assert "Safe" in MODULES[module].read_text().split("_YAML_LOADER =")[1].splitlines()[0]
        if name.startswith("subprocess."):
            assert "shell" not in keywords
        if last == "extractall":
            assert ast.unparse(keywords["filter"]) == "'data'"


def keys_of(tree: object) -> Iterator[tuple[str, object]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield str(key), value
            yield from keys_of(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from keys_of(value)


def test_the_only_target_of_the_configurations_is_hydras_own_callback():
    files = sorted(CONFIG_DIR.rglob("*.yaml"))
    assert len(files) > 15
    targets = [
        (path.relative_to(CONFIG_DIR).as_posix(), value)
        for path in files
        for key, value in keys_of(yaml.safe_load(path.read_text()))
        if re.fullmatch(r"_(target|partial|args|recursive|convert)_", key)
    ]
    assert targets == [("train.yaml", "icsbench.app.launch.SweepOutcome")]
