"""Copy the committed tables into README.md, between the comments that name them; ``--check`` only compares.

A block is ``<!-- from results/reference/X.md -->`` ... ``<!-- end -->``; what stands between is the file's content.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- from (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def filled(readme: str) -> str:
    return BLOCK.sub(lambda block: block[1] + (ROOT / block[2]).read_text() + block[4], readme)


def main() -> None:
    path = ROOT / "README.md"
    readme = path.read_text()
    if "--check" not in sys.argv:
        path.write_text(filled(readme))
    elif filled(readme) != readme:
        sys.exit("README.md differs from the committed tables: run python scripts/readme_tables.py")


if __name__ == "__main__":
    main()
