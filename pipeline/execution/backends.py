"""Where and how wide a step runs: the runners, and Beam's options for each."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ValidationError

from pipeline.execution.beam_flags import Flag, flags
from pipeline.execution.environment import gpus
from pipeline.execution.job import Job
from pipeline.recipes.runner import RunnerConfig
from pipeline.recipes.schema import RecipeError

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

PARALLELISM = re.compile(r"--(?:parallelism|max_parallelism|max_num_workers|num_workers)=(\d+)")
"""Beam's own options that say how many workers there may be at once."""
RUNNERS = ("local", "flink", "spark", "dataflow", "portable")
EMBEDDED = "embed"
"""The job endpoint that is Beam's own job service, inside the process that hands the job over."""
OURS = {
    "job_endpoint": "job_endpoint",
    "environment_type": "environment",
    "environment_config": "environment_config",
    "flink_master": "master",
    "spark_master_url": "master",
    "flink_job_server_jar": "jar",
    "spark_job_server_jar": "jar",
    "job_server_java_launcher": "java",
    "artifacts_dir": "staging",
    "sdk_worker_parallelism": "workers_per_machine",
    "parallelism": "parallelism",
    "max_num_workers": "parallelism",
    "project": "project",
    "region": "region",
    "temp_location": "temp_location",
}
"""Options of Beam that are keys of [runner]: what stands behind `--` goes before the recipe."""
IN_JOB_SERVER = ("", "[local]", "[auto]", "local")
"""Masters that are no cluster: the engine runs inside the job server."""
HERE = re.compile(
    r"(?:https?://|spark://)?(?:localhost|127(?:\.\d+){3}|\[?::1\]?|\[local\]|local(?:\[.*\])?)(?::\d+)?/?"
)
"""Addresses of this machine."""
SPARK_MASTER = re.compile(
    r"local(?:\[(?:\d+|\*)(?:,\d+)?\])?|spark://[^\s:/,]+:\d{1,5}(?:,[^\s:/,]+:\d{1,5})*|yarn|k8s://\S+"
)
FLINK_FILES = ("config.yaml", "flink-conf.yaml")
OPENED = ("lang", "lang.invoke", "util", "util.concurrent", "nio", "net", "io")
"""Packages of java.base that Spark looks into, and must be let from Java 17 on; beside them sun.nio.ch."""
NO_RESTARTS = "--number_of_execution_retries=0"
"""Flink ends a job when one of its tasks fails, whatever its own strategy: the run hands over what is left, counts
deaths, and asks for no more slots than there are then."""
START = "see docs/cluster.md"


@dataclass(frozen=True)
class RunnerOptions:
    """Where and how wide a step runs. `stall_s`: seconds without a sign of life after which a worker counts as dead."""

    runner: str = "local"
    workers: int = 0
    beam_options: tuple[str, ...] = ()
    stall_s: float = 900.0
    config: RunnerConfig = field(default_factory=RunnerConfig)

    @property
    def parallelism(self) -> int:
        """Return how many worker processes share what a step may take of others' servers, each taking its part; 0 where
        nobody says. On this machine it is one: they take from one budget (see Supervisor)."""
        if self.runner == "local":
            return 1
        said = [PARALLELISM.fullmatch(option) for option in self.beam_options]
        return self.workers or max((int(match[1]) for match in said if match), default=self.config.parallelism)

    @property
    def processes(self) -> int:
        """Return the number of worker processes: as asked, else one per core (one per GPU where there are any)."""
        return self.workers or len(gpus()) or len(os.sched_getaffinity(0))

    @cached_property
    def backend(self) -> "Backend":
        """Return the runner that these options mean. Raises RecipeError for values that no runner takes."""
        given = list(flags(self.beam_options))
        said = {OURS[flag.name]: flag.value for flag in given if flag.name in OURS}
        if "environment" in said:
            said["environment"] = said["environment"].lower()
        if self.workers:
            said["parallelism"] = str(self.workers)
        try:
            config = RunnerConfig.model_validate({**self.config.model_dump(), **said})
        except ValidationError as error:
            fault = error.errors()[0]
            option = next(name for name, key in OURS.items() if key == fault["loc"][0])
            raise RecipeError(f"--{option}: {fault['msg']} (got {said[str(fault['loc'][0])]!r})") from error
        return BACKENDS[self.runner](config, tuple(flag for flag in given if flag.name not in OURS))


@dataclass(frozen=True)
class ServerCommand:
    """How a job server is started: Java, what it loads, and the server's own options but for its ports."""

    java: str
    loads: tuple[str, ...]
    options: tuple[str, ...]


@dataclass(frozen=True)
class Backend:
    """A runner and what it was told. `given`: options for Beam that no key of [runner] says."""

    config: RunnerConfig = field(default_factory=RunnerConfig)
    given: tuple[Flag, ...] = ()
    name: ClassVar[str] = ""
    beam_runner: ClassVar[str] = "PortableRunner"

    @property
    def environment(self) -> str:
        """Return how workers start, as Beam calls it: as said, else in pools where there are any; else nothing."""
        return (self.config.environment or ("external" if self.config.pools else "")).upper()

    @property
    def is_here(self) -> bool:
        """Tell whether all workers are on this machine, as far as the options tell."""
        return True

    @property
    def rest(self) -> str:
        """Return the address of Flink's REST, or nothing."""
        return ""

    def check(self) -> None:
        """Raise RecipeError where something is missing that can be told without asking anybody."""

    def server(self) -> ServerCommand | None:
        """Return how the job server is started by the run itself, None where it is not."""
        return None

    def beam(self, endpoint: str, job: str, parallelism: int) -> list[str]:
        """Return Beam's options for a job of this name that is handed to a job server at `endpoint`."""
        return [word for flag in self.given for word in flag.words]


@dataclass(frozen=True)
class Local(Backend):
    """Worker processes of this machine."""

    name = "local"


@dataclass(frozen=True)
class Portable(Backend):
    """Any engine behind a Beam job server that runs already."""

    name = "portable"

    @property
    def environment(self) -> str:
        """Return how workers start: as said, in pools where there are any, else as threads of this run if the engine is
        on this machine; nothing where that is not known."""
        return super().environment or ("LOOPBACK" if self._engine_here else "")

    @property
    def _engine_here(self) -> bool:
        if self.server() is not None:
            return HERE.fullmatch(self.config.master or "localhost") is not None
        return self.config.job_endpoint == EMBEDDED or HERE.fullmatch(self.config.job_endpoint) is not None

    @property
    def is_here(self) -> bool:
        """Tell whether all workers are on this machine: threads of this run, or those of an engine and of pools that
        are called by this machine's name."""
        if self.environment == "LOOPBACK":
            return True
        called = self.config.environment_config if self.environment == "EXTERNAL" else ""
        named = [self.config.master, *self.config.pools, called]
        return self.environment != "DOCKER" and self._engine_here and all(HERE.fullmatch(one) for one in named if one)

    @property
    def pool(self) -> str:
        """Return the address of the worker pool as the engine calls it."""
        return self.config.environment_config or next(iter(self.config.pools), "")

    def check(self) -> None:
        """Raise RecipeError where nobody takes the job, or nobody starts workers."""
        if not self.config.job_endpoint and self.server() is None:
            raise RecipeError(self._no_server())
        if not self.environment:
            raise RecipeError(
                f"--runner {self.name}: the engine is on another machine, and [runner] does not say how it starts"
                ' workers; give pools = ["HOST:PORT"] (a worker pool beside each of its processes), or environment ='
                ' "docker" or "process"'
            )
        if self.environment == "EXTERNAL" and not self.pool:
            raise RecipeError(
                f'--runner {self.name}: environment = "external" needs the address of a worker pool: pools ='
                ' ["HOST:PORT"]'
            )
        if self.environment == "PROCESS" and not self.config.environment_config:
            raise RecipeError(
                f'--runner {self.name}: environment = "process" needs environment_config ='
                ' \'{"command": "PATH"}\', the program that starts a worker'
            )

    def _no_server(self) -> str:
        return (
            f"--runner {self.name}: nobody takes the job; give runner.job_endpoint, the HOST:PORT of a Beam job server"
            f" ({START})"
        )

    def beam(self, endpoint: str, job: str, parallelism: int) -> list[str]:
        """Return Beam's options for a job of this name that is handed to a job server at `endpoint`."""
        config = self.pool if self.environment == "EXTERNAL" else self.config.environment_config
        return [
            f"--job_endpoint={endpoint}",
            f"--job_name={job}",
            f"--environment_type={self.environment}",
            *([f"--environment_config={config}"] if config else []),
            f"--sdk_worker_parallelism={self.config.workers_per_machine}",
            *super().beam(endpoint, job, parallelism),
        ]


@dataclass(frozen=True)
class _Started(Portable):
    """An engine whose job server the run can start itself."""

    main: ClassVar[str] = ""

    def check(self) -> None:
        """Raise RecipeError where nobody takes the job, or two job servers are named."""
        if self.config.jar and self.config.classpath:
            raise RecipeError(
                f"--runner {self.name}: got runner.jar = {self.config.jar!r} and runner.classpath ="
                f" {self.config.classpath!r}, and a run starts one job server; give one of them"
            )
        super().check()

    def _no_server(self) -> str:
        return (
            f"--runner {self.name}: nobody takes the job; give one of runner.job_endpoint (HOST:PORT of a job server"
            f" that runs), runner.jar (a job server's jar) or runner.classpath (a folder of jars): {START}"
        )

    def server(self) -> ServerCommand | None:
        """Return how the job server is started by the run itself, None where one runs or nothing says how."""
        if self.config.job_endpoint or not (self.config.jar or self.config.classpath):
            return None
        loads = ("-jar", self.config.jar) if self.config.jar else ("-cp", _classpath(self.config.classpath), self.main)
        staging = ("--artifacts-dir", self.config.staging) if self.config.staging else ()
        return ServerCommand(java_of(self.config.java), (*self._jvm(), *loads), (*self._master(), *staging))

    def _jvm(self) -> Sequence[str]:
        return ()

    def _master(self) -> Sequence[str]:
        return ()


@dataclass(frozen=True)
class Flink(_Started):
    """Flink: inside the job server, or a session cluster (`master`)."""

    name = "flink"
    main = "org.apache.beam.runners.flink.FlinkJobServerDriver"

    @property
    def rest(self) -> str:
        """Return the address of Flink's REST, or nothing where Flink runs inside the job server."""
        named = self.config.rest or ("" if self.config.master in IN_JOB_SERVER else self.config.master)
        return named if not named or "://" in named else f"http://{named}"

    def check(self) -> None:
        """Raise RecipeError where nobody takes the job, or runner.conf holds no configuration."""
        super().check()
        conf = self.config.conf
        if conf and self.server() and not any((Path(conf) / name).is_file() for name in FLINK_FILES):
            raise RecipeError(
                f"runner.conf: got {conf!r}, wanted a folder that holds Flink's {' or '.join(FLINK_FILES)}; it is"
                f" looked for in {os.getcwd()}"
            )

    def _master(self) -> Sequence[str]:
        conf = (f"--flink-conf-dir={self.config.conf}",) if self.config.conf else ()
        return (f"--flink-master={self.config.master or '[local]'}", *conf)

    def beam(self, endpoint: str, job: str, parallelism: int) -> list[str]:
        """Return Beam's options for a job of this name that is handed to a job server at `endpoint`."""
        wide = [f"--parallelism={parallelism}"] if parallelism else []
        return [*wide, NO_RESTARTS, *super().beam(endpoint, job, parallelism)]


@dataclass(frozen=True)
class Spark(_Started):
    """Spark: inside the job server, or a standalone cluster (`master`)."""

    name = "spark"
    main = "org.apache.beam.runners.spark.SparkJobServerDriver"

    def check(self) -> None:
        """Raise RecipeError where nobody takes the job, its master is none, or a width is asked of a job server that
        has its own."""
        master = self.config.master
        if master not in IN_JOB_SERVER and not SPARK_MASTER.fullmatch(master):
            raise RecipeError(
                f"runner.master: got {master!r}, wanted Spark's: local, local[N], local[*],"
                " spark://HOST:PORT[,HOST:PORT], yarn or k8s://…, or none for a Spark inside the job server"
            )
        super().check()
        if self.config.job_endpoint and self.config.parallelism:
            raise RecipeError(
                f"--workers {self.config.parallelism}: Spark's own job server at {self.config.job_endpoint} says how"
                " wide it is; start it with that many cores (spark.cores.max), or let the run start it (runner.jar)"
            )

    def _jvm(self) -> Sequence[str]:
        opened = [*(f"java.{name}" for name in OPENED), "sun.nio.ch"]
        wide = [f"-Dspark.cores.max={self.config.parallelism}"] if self.config.parallelism else []
        return [*(f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in opened), *wide]

    def _master(self) -> Sequence[str]:
        inside = f"local[{self.config.parallelism or '*'}]"
        return ("--spark-master-url", inside if self.config.master in IN_JOB_SERVER else self.config.master)


@dataclass(frozen=True)
class Dataflow(Backend):
    """Google Cloud Dataflow."""

    name = "dataflow"
    beam_runner = "DataflowRunner"

    @property
    def environment(self) -> str:
        """Return how workers start: Dataflow starts containers."""
        return "DOCKER"

    @property
    def is_here(self) -> bool:
        """Tell that no worker is on this machine."""
        return False

    def check(self) -> None:
        """Raise RecipeError where Dataflow is not told what it cannot do without."""
        needed = ("project", "region", "temp_location")
        missing = [f"runner.{name}" for name in needed if not getattr(self.config, name)]
        if missing:
            raise RecipeError(f"--runner dataflow: give {', '.join(missing)} ({START})")

    def beam(self, endpoint: str, job: str, parallelism: int) -> list[str]:
        """Return Beam's options for a job of this name."""
        config = self.config
        hints = {"accelerator": config.accelerator, "min_ram": config.min_ram}
        return [
            f"--job_name={job}",
            f"--project={config.project}",
            f"--region={config.region}",
            f"--temp_location={config.temp_location}",
            *([f"--max_num_workers={parallelism}"] if parallelism else []),
            *([f"--sdk_container_image={config.environment_config}"] if config.environment_config else []),
            *(f"--resource_hint={name}={hint}" for name, hint in hints.items() if hint),
            *super().beam(endpoint, job, parallelism),
        ]


BACKENDS: dict[str, type[Backend]] = {kind.name: kind for kind in (Local, Flink, Spark, Dataflow, Portable)}


def java_of(named: str) -> str:
    """Return the `java` that is meant: as named, that of JAVA_HOME, else of PATH."""
    home = os.environ.get("JAVA_HOME", "")
    return named or (str(Path(home) / "bin" / "java") if home else "java")


def _classpath(said: str) -> str:
    """Return what `java -cp` takes: all jars of a folder, else as it was said."""
    return os.path.join(said, "*") if os.path.isdir(said) else said


def pipeline_options(job: Job) -> "tuple[Any, PipelineOptions]":
    """Return (runner, options): FnApiRunner by name for `local`, since Beam's own default downloads a binary and runs
    it."""
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    if job.runner == "local":
        return FnApiRunner(), PipelineOptions(
            [*job.beam_options, "--direct_num_workers=1", "--direct_running_mode=in_memory"]
        )
    return None, PipelineOptions([f"--runner={BACKENDS[job.runner].beam_runner}", *job.beam_options])
