"""Say what a cluster's runner can be told: the recipe's [runner] table, which is in no key and no digest."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class RunnerConfig(BaseModel):
    """[runner]: where the engine is, and how its workers start; `--runner` says which engine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # who takes the job
    job_endpoint: str = Field("", description="host:port of a Beam job server that runs already")
    jar: str = Field("", description="flink, spark: the job server's jar, which the run starts itself")
    classpath: str = Field(
        "", description="instead of `jar`: a folder of jars, a jar that names others, or what `java -cp` takes"
    )
    java: str = Field("", description="the `java` that runs it; none: that of JAVA_HOME, else of PATH")
    master: str = Field(
        "", description="flink: its REST address; spark: the master's URL; none: an engine inside the job server"
    )
    rest: str = Field("", description="flink: its REST address, where `master` does not say it")
    conf: str = Field("", description="flink: folder with its config.yaml, for a job server that the run starts")
    staging: str = Field("", description="folder in which the job server leaves what workers fetch")

    # where the workers are
    environment: Literal["", "loopback", "external", "docker", "process"] = Field(
        "",
        description=(
            "how the engine starts workers: threads of this run, a pool, a container, a command; none: external where"
            " there are pools, loopback where the engine is on this machine"
        ),
    )
    environment_config: str = Field(
        "", description="docker: the image; process: the command, as JSON; external: the pool as the engine calls it"
    )
    pools: tuple[str, ...] = Field(
        (), description="host:port of worker pools as this machine calls them: each is tried before the run"
    )
    parallelism: int = Field(
        0, ge=0, le=100_000, description="units done at once; `--workers` goes before it; 0: the engine's free slots"
    )
    workers_per_machine: int = Field(
        1, ge=0, le=1024, description="worker processes for each of the engine's own; 0: as the engine likes"
    )

    # how long to wait
    start_s: float = Field(
        300.0, gt=0, description="seconds for slots and workers to be there; then the job is cancelled, and it is said"
    )
    stall_s: float = Field(900.0, gt=0, description="seconds without a sign of life; then the same")

    # dataflow
    project: str = Field("", description="dataflow: the project")
    region: str = Field("", description="dataflow: the region")
    temp_location: str = Field("", description="dataflow: gs:// folder for its own files")
    accelerator: str = Field(
        "", description="dataflow: a hint such as `type:nvidia-tesla-t4;count:1;install-nvidia-driver`"
    )
    min_ram: str = Field("", description="dataflow: memory of a worker at least, such as 16GB")

    @field_validator("pools", mode="before")
    @classmethod
    def _a_list(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError('wanted a list, such as ["HOST:PORT"]')
        return value
