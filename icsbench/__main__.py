"""``python -m icsbench``."""

from icsbench.cli import main

main()
