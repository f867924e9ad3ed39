"""The catalogue of studies and labs as Markdown: from their YAML files, the committed pages, and ``claims.json``."""

import os
import re
from pathlib import Path

from docs_configuration import CONFIGS, cell, opening
from readme_tables import ROOT, committed, verdict_table

from icsbench.analysis.claims import all_claims

REFERENCE = ROOT / "results" / "reference"
# The figure, and the page with the finding, of studies that no heading of a committed page names.
PAGES = {
    "three_regimes": ("three_regimes/accuracy.png", "../../docs/results.md#the-three-regimes"),
    "high_lr": ("high_lr/accuracy.png", "../../docs/results.md#learning-rate-05"),
    "long": ("paper/accuracy.png", "paper/README.md"),
    "landscape": ("landscape/ics-lr0.1.png", "landscape/README.md"),
    "lp": ("lp/accuracy.png", "lp/README.md"),
    "dln": ("dln/loss.png", "dln/README.md"),
    "dln_lp": ("dln_lp/loss.png", "dln_lp/README.md"),
    "percentiles": ("percentiles/percentiles-cpu/percentiles.png", "percentiles/README.md"),
    "dose": ("claims/dose.png", "claims/README.md"),
    "lr_grid": ("claims/lr_grid.png", "claims/README.md"),
    "batch_size": ("claims/batch_size.png", "claims/README.md"),
    "noise_control": ("", "claims/README.md"),
    "dln_lr": ("", "claims/README.md"),
    "theorems": ("", "theorems/README.md"),
}


def section(name: str) -> str:
    """The part of a committed page below the heading that names a study in backquotes; empty without one."""
    for path in (REFERENCE / page / "README.md" for page in ("depth", "alternatives", "confirmation")):
        for part in re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.M)[1:]:
            heading, _, body = part.partition("\n")
            if f"`{name}`" in heading:
                return from_docs(body.strip(), path.parent)
    return ""


def from_docs(text: str, folder: Path) -> str:
    """The text with links that hold in ``docs``."""
    to = os.path.relpath(folder, ROOT / "docs")
    return re.sub(r"\]\((?![a-z]+:|#)([^()\s]+)\)", lambda found: f"]({os.path.normpath(f'{to}/{found[1]}')})", text)


def finding(path: Path) -> str:
    """The figure of a study or lab and its finding, or where that is."""
    name = path.stem
    if name not in PAGES:
        using = [p.stem for p in path.parent.parent.glob("experiment/*.yaml") if f"/lab: {name}\n" in p.read_text()]
        of_studies = ", ".join(f"[`{study}`](#{study})" for study in sorted(using))
        return section(name) or (f"The study with it: {of_studies}." if using else "")
    figure, page = PAGES[name]
    image = f"![{name}]({figure})\n\n" if figure else ""
    heading = (REFERENCE / page.partition("#")[0]).read_text(encoding="utf-8").partition("\n")[0]
    return from_docs(f"{image}Figures and finding: [{heading.removeprefix('# ')}]({page}).", REFERENCE)


def entry(path: Path, command: str) -> str:
    """A study or lab: what it is, how it is run, its finding, and its verdicts."""
    name = path.stem
    served = [claim.id for claim in all_claims() if name in claim.studies and claim.id in committed()]
    verdicts = f"\n{verdict_table(served)}" if served else ""
    return f"### `{name}`\n\n{cell(opening(path))} Run it with `{command}`.\n\n{finding(path)}\n{verdicts}"


def page() -> str:
    """All studies, then the labs that are no study of that name."""
    studies = sorted((CONFIGS / "experiment").glob("*.yaml"))
    named = {path.stem for path in studies}
    labs = [path for path in sorted((CONFIGS / "lab").glob("*.yaml")) if path.stem not in named]
    return "\n".join(
        [
            "## Studies\n",
            *(entry(path, f"icsbench sweep experiment={path.stem} scale=cpu") for path in studies),
            "## Labs that are run alone\n",
            *(entry(path, f"icsbench lab {path.stem}") for path in labs),
        ]
    )
