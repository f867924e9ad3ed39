"""The run directory: the only interface between what trains and what analyses."""

import contextlib
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from icsbench.atomic import write_atomically
from icsbench.config import Config, fingerprint_of, resolve
from icsbench.errors import IcsbenchError
from icsbench.record.legacy import FORMER_KEYS, former_run
from icsbench.record.schema import CHECKPOINT, CONFIG, ENVIRONMENT, LOCK, METRICS, PROBES, SEAL, SUMMARY, TIMING
from icsbench.record.seal import broken, checksums
from icsbench.record.strict_json import dumps, loads

# Seconds to wait for the lock: longer than a look at the status, or the last steps of a sweep that has been killed.
_PATIENCE = 5.0


def load_config(path: Path) -> Config:
    """Read a run's ``config.yaml``, of this or of an earlier version.

    :raises IcsbenchError: the file is missing, is not a run's config, or is damaged.
    """
    try:
        composed = OmegaConf.load(path)
    except FileNotFoundError:
        raise IcsbenchError(f"{path} is missing; the folder is not a run record") from None
    except Exception as error:
        raise IcsbenchError(f"{path} cannot be read ({' '.join(str(error).split())[:120]})") from error
    if not isinstance(composed, DictConfig) or not composed:
        raise IcsbenchError(f"{path} is not a run's config: it holds no keys")
    return resolve(composed, former=FORMER_KEYS)


def names_of(config: Config) -> list[tuple[str, str]]:
    """Folder name and fingerprint of a run; behind those of this version, those of an earlier one if they differ."""
    name, fingerprint = config.run_name, config.fingerprint
    former = former_run(config.identity(), config.scale)
    if former is None:
        return [(name, fingerprint)]
    identity, network = former
    before = fingerprint_of(identity)
    renamed = name.replace(f"-{config.model.folder_name}-", f"-{network}-", 1).replace(fingerprint, before)
    return [(name, fingerprint), (renamed, before)]


def folder_of(config: Config) -> Path:
    """Where a run's record is: ``config.run_dir``, or the folder of an earlier version where only that is there."""
    folders = [config.run_dir.parents[1] / name / config.run_dir.name for name, _ in names_of(config)]
    return next((folder for folder in folders if (folder / CONFIG).exists()), folders[0])


class Record:
    """The directory of one run, held under a lock while it is open.

    ``config.yaml``, ``environment.json``, ``metrics.jsonl`` (append-only), ``probes/``, ``checkpoint.pt`` and
    ``summary.json``, which is written last: its presence means that the run is complete. ``seal.json`` holds the
    checksums of a complete one, ``timing.json`` wall times, the one thing that is not a function of the config.

    As a run is a function of its config, one that another experiment below the same ``results`` has finished is not
    trained again: its record is copied.
    """

    def __init__(self, config: Config) -> None:
        """Open (or create) the record of ``config``.

        :raises IcsbenchError: the folder cannot be written, is in use by another process, or belongs to another config.
        """
        self.path = folder_of(config)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.path / LOCK)
            self._lock.acquire(timeout=_PATIENCE)
        except Timeout:
            raise IcsbenchError(
                f"{self.path} is in use by another process; wait for it or choose another seed"
            ) from None
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            for left_by_a_kill in self.path.rglob(".*.tmp"):
                left_by_a_kill.unlink()
            self._adopt(config)
            self._claim(config)
            self._metrics: IO[bytes] = open(self.path / METRICS, "ab")
        except BaseException as error:
            self._lock.release()
            if isinstance(error, OSError):
                raise self._unwritable(error) from error
            raise

    def _unwritable(self, error: OSError) -> IcsbenchError:
        return IcsbenchError(
            f"results folder {self.path} cannot be written ({error.strerror}); choose another with results=DIR"
        )

    def _adopt(self, config: Config) -> None:
        """Copy the finished record of the same run from another experiment; ``summary.json`` last."""
        if (self.path / SUMMARY).exists() or (self.path / CHECKPOINT).exists():
            return
        results, seed = Path(config.results), self.path.name
        for theirs in (found for name, _ in names_of(config) for found in sorted(results.glob(f"*/{name}/{seed}"))):
            if theirs == self.path or not (theirs / SUMMARY).exists() or broken(theirs):
                continue
            other = load_config(theirs / CONFIG)  # its data.root says which data the record was made from
            here = replace(
                other,
                experiment=config.experiment,
                scale=config.scale,
                results=config.results,
                study=config.study,
            )
            if (theirs / PROBES).exists():
                shutil.copytree(theirs / PROBES, self.path / PROBES, dirs_exist_ok=True)
            for name in (ENVIRONMENT, METRICS, TIMING, CHECKPOINT):
                if (theirs / name).exists():
                    content = (theirs / name).read_bytes()
                    write_atomically(self.path / name, lambda file, content=content: file.write(content))
            text = here.to_yaml().encode()
            write_atomically(self.path / CONFIG, lambda file, text=text: file.write(text))
            self._finish((theirs / SUMMARY).read_bytes())
            return

    def _claim(self, config: Config) -> None:
        path = self.path / CONFIG
        if path.exists():
            other = load_config(path)
            theirs, ours = {"seed": other.seed, **other.identity()}, {"seed": config.seed, **config.identity()}
            different = sorted(key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key))
            if different:
                raise IcsbenchError(
                    f"{self.path} belongs to another config (it differs in {', '.join(different)}); "
                    "move it away or choose another folder with results=DIR"
                )
        else:
            write_atomically(path, lambda file: file.write(config.to_yaml().encode()))

    def close(self) -> None:
        """Close the files and give back the lock."""
        with contextlib.suppress(OSError):  # of rows that could not be written, which has been said
            self._metrics.close()
        self._lock.release()

    def __enter__(self) -> "Record":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def summary(self) -> dict[str, Any] | None:
        """The summary of a complete run, None otherwise."""
        return self.read_json(SUMMARY)

    def append(self, row: dict[str, Any]) -> None:
        """Append one row to ``metrics.jsonl``; numbers that are not finite as in :mod:`icsbench.record.strict_json`."""
        self._metrics.write(dumps(row).encode() + b"\n")
        self._metrics.flush()

    def position(self) -> int:
        """Bytes of ``metrics.jsonl`` that are safely on disk, for a checkpoint."""
        self._metrics.flush()
        os.fsync(self._metrics.fileno())
        return self._metrics.tell()

    def rewind(self, position: int) -> None:
        """Forget the rows after ``position``, and probe records of later steps are written over as they come.

        :raises IcsbenchError: the file is shorter than that.
        """
        size = self._metrics.seek(0, os.SEEK_END)
        if size < position:
            raise IcsbenchError(
                f"{self.path / METRICS} is shorter than its checkpoint says ({size} < {position} bytes); "
                f"delete {self.path} to start this run again"
            )
        self._metrics.truncate(position)
        self._metrics.seek(position)

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Content of a JSON file of the record, None where there is none.

        :raises IcsbenchError: the file is damaged.
        """
        try:
            return loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise IcsbenchError(
                f"{self.path / name} is damaged ({error}); delete it and run the command again"
            ) from error

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file of the record atomically."""
        write_atomically(self.path / name, lambda file: file.write(_json(content)))

    def finish(self, summary: dict[str, Any]) -> None:
        """Write ``seal.json``, then ``summary.json``: the run is complete."""
        self._metrics.flush()
        self._finish(_json(summary))

    def _finish(self, summary: bytes) -> None:
        self.write_json(SEAL, checksums(self.path, summary))
        write_atomically(self.path / SUMMARY, lambda file: file.write(summary))

    def write_arrays(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Write an ``.npz`` file of the record atomically."""
        write_atomically(self.path / name, lambda file: np.savez(file, **arrays))  # pyright: ignore[reportArgumentType]


def _json(content: Any) -> bytes:
    return dumps(content, indent=2).encode() + b"\n"
