import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_the_tables_are_those_of_the_committed_results():
    subprocess.run([sys.executable, ROOT / "scripts" / "readme_tables.py", "--check"], check=True)
    assert len(re.findall(r"<!-- from \S+ -->", README)) >= 3


def test_every_file_that_the_readme_links_to_is_there():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_config_key_and_option_named_in_the_readme_exists():
    from icsbench.hydra_app import CONFIG_DIR

    named = set(re.findall(r"\b(scale|norm|experiment|model|probes|wandb|data)=([a-z]\w*)\b", README))
    assert named
    assert [
        f"{group}={option}" for group, option in named if not (CONFIG_DIR / group / f"{option}.yaml").exists()
    ] == []
