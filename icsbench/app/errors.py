"""What Hydra says of the arguments, as one line."""

import contextlib
import difflib
import os
import re
import traceback
from collections.abc import Iterator

from hydra.core.config_store import ConfigStore

from icsbench.config import unknown_key
from icsbench.errors import IcsbenchError


@contextlib.contextmanager
def asking_hydra() -> Iterator[None]:
    """Turn what Hydra raises about the arguments into one line; with HYDRA_FULL_ERROR=1 leave it as it is.

    Names of folders and labs that were made known to Hydra are forgotten at the end.

    :raises IcsbenchError: in place of an exception of Hydra or OmegaConf.
    """
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come to us instead of being printed
    try:
        yield
    except Exception as error:
        if before == "1" or not _of_hydra(error):
            raise
        raise IcsbenchError(_one_line(error)) from error
    finally:
        for group in ("experiment", "lab"):
            ConfigStore.instance().repo.pop(group, None)
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


def _of_hydra(error: BaseException) -> bool:
    raised_by = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)][-1]
    return any(name.startswith(("hydra.", "omegaconf.")) for name in (type(error).__module__, raised_by))


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    unknown = re.match(r"Could not override '([^']+)'", text)
    if unknown:
        return unknown_key(unknown[1])
    override = getattr(error, "override", None)
    if "missing EQUAL" in text:
        return f"'{override}' is not an override; they are key=value, such as seed=3"
    if override and override not in text:
        text = f"Error parsing override '{override}': {text}"
    several = re.match(r"Ambiguous value for argument '([^']+)'|Sweep parameters '([^']+)' requires", text)
    if several:
        return f"'{several[1] or several[2]}' gives several values, which is for icsbench sweep (or --multirun)"
    text = re.split(r" Config search path:| See https:| Set the environment variable", text)[0]
    missing = re.search(r"Could not find '([\w/]+)/([^/']+)' Available options in '[^']+': (.+)", text)
    if missing:
        close = difflib.get_close_matches(missing[2], missing[3].split(), n=1)
        text += f"; did you mean {missing[1]}={close[0]}?" if close else ""
    return text
