"""A standalone Spark: the commands of its processes, and the folder that they take for an installed Spark."""

from pathlib import Path

from deploy.jars import HOME, job_server_jar
from deploy.settings import Settings

MASTER = "org.apache.spark.deploy.master.Master"
WORKER = "org.apache.spark.deploy.worker.Worker"
OPENED = (
    *("lang", "lang.invoke", "lang.reflect", "io", "net", "nio", "util", "util.concurrent", "util.concurrent.atomic"),
)
INNER = ("sun.nio.ch", "sun.nio.cs", "sun.security.action", "sun.util.calendar")
HEAP = "-Xmx256m"


def opened() -> list[str]:
    """Return the options that let Spark 3.5 run on Java 17."""
    names = [f"java.base/java.{name}" for name in OPENED] + [f"java.base/{name}" for name in INNER]
    return [f"--add-opens={name}=ALL-UNNAMED" for name in names]


def make_home(home: Path = HOME) -> Path:
    """Make the folder whose jars/ a Spark worker gives its executors, and return it."""
    spark = home / "spark-home"
    spark.mkdir(parents=True, exist_ok=True)
    if not (spark / "jars").is_symlink():
        (spark / "jars").symlink_to(home / "spark")
    return spark


def environment(folder: Path, home: Path = HOME) -> dict[str, str]:
    """Return what Spark's processes read from their environment."""
    return {"SPARK_HOME": str(home / "spark-home"), "SPARK_SCALA_VERSION": "2.12", "SPARK_LOCAL_IP": "127.0.0.1"}


def commands(settings: Settings, folder: Path, home: Path = HOME) -> dict[str, list[str]]:
    """Return name -> command of the master and its worker, in the order of their start."""
    java = ["java", HEAP, "-XX:+UseSerialGC", *opened(), "-cp", str(home / "spark" / "*")]
    ports = ("--port", str(settings.spark_master), "--webui-port", str(settings.spark_page))
    work = ("--work-dir", str(folder / "spark-work"), "--webui-port", "0", "--memory", "2g")
    address = f"spark://127.0.0.1:{settings.spark_master}"
    return {
        "spark-master": [*java, MASTER, "--host", "127.0.0.1", *ports],
        "spark-worker": [*java, WORKER, "--host", "127.0.0.1", *work, "--cores", str(settings.slots), address],
    }


def runner_keys(settings: Settings, folder: Path, home: Path = HOME) -> dict[str, str | int]:
    """Return what [runner] must say for a run on this cluster."""
    return {
        "jar": str(job_server_jar("spark", home)),
        "master": f"spark://127.0.0.1:{settings.spark_master}",
        "staging": str(folder / "tmp" / "spark-artifacts"),
        "parallelism": settings.slots,
    }
