"""The machine that a run is made on, as its record names it."""

import os
import platform
import re
from pathlib import Path


def system() -> str:
    """``Linux x86_64, 2 cores``."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def processor() -> str:
    """The model of its processor, as the system calls it; empty where it does not say."""
    cpus = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.*)", cpus.read_text("utf-8", "replace")) if cpus.exists() else []
    return models[0] if models else platform.processor()


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
