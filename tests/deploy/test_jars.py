"""deploy/jars.py: Maven is asked once, and a jar of a manifest alone names its libraries."""

import subprocess
import zipfile

import pytest

from deploy import jars
from deploy.jars import fetch, is_fresh, job_server_jar, libraries, main, manifest, write_pathing_jar


def lines_of(data):
    """Join the lines of a manifest that go on."""
    return data.decode().replace("\r\n ", "").splitlines()


def test_a_manifest_has_lines_of_72_bytes_at_most():
    names = [f"flink/library-{number}.jar" for number in range(20)]
    data = manifest("org.example.Main", names)
    assert max(map(len, data.splitlines())) == 70  # and two bytes that end it
    assert lines_of(data) == [
        "Manifest-Version: 1.0",
        "Main-Class: org.example.Main",
        f"Class-Path: {' '.join(names)}",
        "",
    ]


def test_the_jar_names_libraries_relative_to_itself_and_has_the_same_bytes_each_time(tmp_path):
    (tmp_path / "spark").mkdir()
    for name in ("b.jar", "a.jar", "notes.txt"):
        (tmp_path / "spark" / name).touch()
    path = write_pathing_jar("spark", tmp_path)
    first = path.read_bytes()
    with zipfile.ZipFile(path) as jar:
        assert jar.namelist() == ["META-INF/MANIFEST.MF"]
        assert lines_of(jar.read("META-INF/MANIFEST.MF"))[2] == "Class-Path: spark/a.jar spark/b.jar"
    assert write_pathing_jar("spark", tmp_path).read_bytes() == first
    assert sorted(one.name for one in tmp_path.iterdir()) == ["spark", "spark-job-server.jar"]


@pytest.fixture
def maven(tmp_path, monkeypatch):
    """A stand-in for mvn, which copies one jar or fails; the list of its calls."""
    calls, code = [], [0]

    def run(command, **options):
        calls.append(command)
        folder = tmp_path / command[-1].partition("=")[2]
        folder.mkdir(parents=True)
        if not code[0]:
            (folder / "beam.jar").touch()
        return subprocess.CompletedProcess(command, code[0], "", "no such artifact")

    monkeypatch.setattr(jars, "HOME", tmp_path)
    for function in (libraries, job_server_jar, write_pathing_jar, fetch, is_fresh):
        monkeypatch.setattr(function, "__defaults__", (tmp_path, *(function.__defaults__ or ())[1:]))
    monkeypatch.setattr(jars.subprocess, "run", run)
    monkeypatch.setattr(jars.shutil, "which", lambda name: f"/usr/bin/{name}")
    calls.append(code)
    return calls


def test_maven_is_asked_once_and_again_when_the_pom_changes(maven, tmp_path, monkeypatch, capsys):
    assert main([]) == 0
    assert [command[5] for command in maven[1:]] == ["-Pflink", "-Pspark"]
    assert main([]) == 0
    assert len(maven) == 3
    assert "flink: 1 libraries" in capsys.readouterr().out
    monkeypatch.setattr(jars, "pom_digest", lambda: "another")
    assert main(["spark"]) == 0
    assert maven[3][5] == "-Pspark"


def test_where_maven_fails_what_was_there_stays(maven, tmp_path, monkeypatch, capsys):
    assert main(["flink"]) == 0
    maven[0][0] = 1
    monkeypatch.setattr(jars, "pom_digest", lambda: "another")
    assert main(["flink"]) == 1
    assert "flink: no libraries: Maven ended with 1: no such artifact" in capsys.readouterr().err
    assert [path.name for path in libraries("flink", tmp_path)] == ["beam.jar"]
    assert list(tmp_path.glob("*.tmp*")) == []


def test_without_maven_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jars, "HOME", tmp_path)
    monkeypatch.setattr(is_fresh, "__defaults__", (tmp_path,))
    monkeypatch.setattr(jars.shutil, "which", lambda name: None)
    assert main(["flink"]) == 1
    assert "no `mvn` on PATH" in capsys.readouterr().err


def test_an_unknown_engine_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["storm"])
    assert "no engine ['storm']; there are flink, spark" in capsys.readouterr().err
