"""A hook of MkDocs: it brings the committed results into the site, and writes what follows from schema and records.

Pages link to files of the repository, so that they can be read there too. A link to a page, figure or table of
``results/reference`` becomes one inside the site; one to code becomes the name of the file.
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).resolve().parent))

import docs_catalogue
import docs_configuration

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "results" / "reference"
NOTEBOOK = "docs/probes.ipynb"
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
MADE = re.compile(r"<!-- made from the schema and configs/: (\w+) [^>]*-->")
MAKERS = {"configuration": docs_configuration.page, "catalogue": docs_catalogue.page}


def linked(text: str, folder: str) -> Iterator[str]:
    """The files of the repository that a page in ``folder`` links to, as paths from its root."""
    for _, _, target in LINK.findall(text):
        path = target.partition("#")[0]
        if path and ":" not in path:
            yield os.path.normpath(f"{folder}/{path}")


def as_page(notebook: Path) -> str:
    """A notebook as Markdown: its code in blocks, without outputs."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    texts = [("".join(cell["source"]), cell["cell_type"] == "code") for cell in cells]
    return "\n\n".join(f"```python\n{text}\n```" if code else text for text, code in texts) + "\n"


def on_files(files: Files, config: Any) -> Files:
    """Add the results that pages name, and the notebook as a page."""
    pages = {path.relative_to(ROOT).as_posix(): path for path in REFERENCE.rglob("*.md")}
    written = {f"docs/{file.src_uri}": Path(str(file.abs_src_path)) for file in files if file.src_uri.endswith(".md")}
    found = {*pages}
    for name, path in {**pages, **written}.items():
        found |= {*linked(filled(path.read_text(encoding="utf-8")), str(PurePosixPath(name).parent))}
    for name in sorted(found):
        if name.startswith("results/") and (ROOT / name).is_file():
            files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    files.append(File.generated(config, "notebook.md", content=as_page(ROOT / NOTEBOOK)))
    return files


def filled(markdown: str) -> str:
    """The text with what is made from schema and records in its place."""
    return MADE.sub(lambda found: MAKERS[found[1]](), markdown)


def in_site(path: str) -> str | None:
    """Where a file of the repository is in the site; None if it is not there."""
    if path == NOTEBOOK:
        return "notebook.md"
    if (ROOT / path).is_dir() and (ROOT / path / "README.md").exists():
        path = f"{path}/README.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return path if path.startswith("results/reference/") and (ROOT / path).is_file() else None


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page with its made parts, and links of the site in place of those of the repository."""
    uri = page.file.src_uri
    repository = uri if uri.startswith("results/") else f"docs/{uri}"
    here = str(PurePosixPath(repository).parent)

    def moved(link: re.Match[str]) -> str:
        image, text, target = link.groups()
        path, hash_, anchor = target.partition("#")
        if not path or ":" in path:
            return link[0]
        whole = os.path.normpath(f"{here}/{path}")
        if not (ROOT / whole).exists():
            return link[0]  # which MkDocs then reports
        if (place := in_site(whole)) is None:
            return f"`{text.strip('`')}`" if text.strip("`") == whole else f"{text} (`{whole}`)"
        relative = os.path.relpath(place, str(PurePosixPath(uri).parent))
        return f"{image}[{LINK.sub(moved, text) if not image else text}]({relative}{hash_}{anchor})"

    return LINK.sub(moved, filled(markdown))
