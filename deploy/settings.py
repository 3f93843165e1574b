"""What the cluster of one machine is made of: ports, memory, how many, and where it keeps its files."""

import argparse
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from deploy.jars import HOME
from deploy.processes import listens


@dataclass(frozen=True)
class Settings:
    """Ports of 127.0.0.1 and sizes. `make cluster-up ARGS="--flink-page 18081"` sets another."""

    flink_page: int = 8081
    """Flink's page and REST."""
    flink_rpc: int = 6123
    flink_blob: int = 6124
    spark_master: int = 7077
    spark_page: int = 8080
    pool: int = 50000
    """Our worker pool, which serves all TaskManagers and Spark workers of this machine."""
    task_managers: int = 3
    slots: int = 2
    """Slots of each TaskManager, and cores of the Spark worker."""

    def ports(self, engines: set[str]) -> dict[str, int]:
        """Return name -> port of what is started for these engines."""
        names = ("flink_blob", "flink_page", "flink_rpc", "spark_master", "spark_page")
        ports = {name: getattr(self, name) for name in names if name.partition("_")[0] in engines}
        return ports | {"pool": self.pool}

    def taken(self, engines: set[str]) -> list[str]:
        """Return the options whose ports another program has."""
        return [f"--{name.replace('_', '-')} {port}" for name, port in self.ports(engines).items() if listens(port)]

    @property
    def parallelism(self) -> int:
        """Return how many slots there are on Flink."""
        return self.task_managers * self.slots


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser an option for each setting."""
    for one in fields(Settings):
        parser.add_argument(f"--{one.name.replace('_', '-')}", type=int, default=one.default, metavar="N")


def from_options(asked: argparse.Namespace) -> Settings:
    """Return the settings that were asked for."""
    return Settings(**{one.name: getattr(asked, one.name) for one in fields(Settings)})


def run_folder(home: Path = HOME) -> Path:
    """Return the folder of notes, logs and configuration of the running cluster."""
    return home / "run"


def write(settings: Settings, folder: Path) -> None:
    """Note the settings of the cluster that is started, for what uses it later."""
    (folder / "settings").write_text(json.dumps(asdict(settings)) + "\n")


def read(folder: Path) -> Settings:
    """Return the settings of the running cluster. Raises OSError where there is none."""
    path = folder / "settings"
    if not path.is_file():
        raise OSError(f"no cluster was started here ({path} is not there); start one: make cluster-up")
    return Settings(**json.loads(path.read_text()))
