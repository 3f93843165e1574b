"""deploy/spark.py: a standalone Spark takes a folder of links for an installed one."""

from deploy.settings import Settings
from deploy.spark import commands, environment, make_home, runner_keys


def test_the_folder_of_an_installed_spark_leads_to_the_libraries(tmp_path):
    (tmp_path / "spark").mkdir()
    (tmp_path / "spark" / "a.jar").touch()
    for _ in range(2):
        assert make_home(tmp_path) == tmp_path / "spark-home"
        assert (tmp_path / "spark-home" / "jars" / "a.jar").is_file()
    assert environment(tmp_path, tmp_path)["SPARK_HOME"] == str(tmp_path / "spark-home")


def test_worker_and_runs_know_the_master(tmp_path):
    settings = Settings(spark_master=5, slots=3)
    found = commands(settings, tmp_path, tmp_path)
    assert list(found) == ["spark-master", "spark-worker"]
    assert found["spark-worker"][-3:] == ["--cores", "3", "spark://127.0.0.1:5"]
    assert runner_keys(settings, tmp_path, tmp_path)["master"] == "spark://127.0.0.1:5"
    assert "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED" in found["spark-master"]
