"""`memsvc export`, `graph --format`, `top`, `health` and `completion` at a real server."""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import networkx
import pytest

from memsvc.cli import main
from tests.integration.server_process import ServerProcess, Worker, connected, created, served, step

TOKENS = 192


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with one session of 192 tokens, each a bookmark."""
    with served(tmp_path_factory.mktemp("export"), "--http", "127.0.0.1:0") as running:
        with connected(running.address) as stubs:
            created(stubs, "s")
            worker = Worker(stubs, "w")
            worker.receive()
            opened = worker.open("s", "a")
            for number, first in enumerate(range(0, TOKENS, 64)):
                worker.steps(step("a", opened.epoch, number + 1, first))
                worker.receive()
            worker.leave()
        yield running


def _http(server: ServerProcess) -> str:
    if not hasattr(server, "http"):
        assert server.process.stdout is not None
        server.http = server.process.stdout.readline().strip().removeprefix("memsvc: http on ")
    return str(server.http)


def _bookmarks(server: ServerProcess, capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    assert main(["bookmarks", "--memory", server.address, "--session", "s", "--json"]) == 0
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)["bookmarks"]
    return found


def test_an_export_holds_every_bookmark_and_link(
    server: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Proves that the file's graph is the session's, and that a line says what was written."""
    bookmarks = _bookmarks(server, capsys)
    file = tmp_path / "s.graphml"
    assert main(["export", "--memory", server.address, "--session", "s", "--output", str(file)]) == 0
    links = {(one["index"], link["parent"], link["weight"]) for one in bookmarks for link in one["links"]}
    assert capsys.readouterr().out == f"{file}: {len(bookmarks)} bookmarks and {len(links)} links of session s\n"
    read = networkx.read_graphml(file, node_type=int)
    assert len(bookmarks) == TOKENS
    assert set(read.nodes) == set(range(TOKENS))
    assert {(*edge, data["weight"]) for *edge, data in read.edges(data=True)} == links
    assert list(tmp_path.iterdir()) == [file]


def test_json_goes_to_standard_output(server: ServerProcess, capsys: pytest.CaptureFixture[str]) -> None:
    """Proves that a program reads the same graph from a pipe."""
    assert main(["export", "--memory", server.address, "--session", "s", "--json"]) == 0
    read = networkx.node_link_graph(json.loads(capsys.readouterr().out), edges="edges")
    assert read.number_of_nodes() == TOKENS
    assert read.graph["session"] == "s"


def test_a_part_of_the_graph_has_no_loose_ends(server: ServerProcess, capsys: pytest.CaptureFixture[str]) -> None:
    """Proves that `graph --format` writes what is around a seed, and only links between what is written."""
    command = ["graph", "--memory", server.address, "--session", "s", "--seed", "100", "--hops", "1"]
    assert main([*command, "--json"]) == 0
    around = {one["index"] for one in json.loads(capsys.readouterr().out)["bookmarks"]}
    assert main([*command, "--format", "graphml"]) == 0
    read = networkx.read_graphml(io.BytesIO(capsys.readouterr().out.encode()), node_type=int)
    assert set(read.nodes) == around
    assert 100 in around
    assert 1 < len(around) < TOKENS


def test_a_file_that_cannot_be_written_is_one_line(
    server: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Proves that a missing folder is told, with exit code 1."""
    file = tmp_path / "no" / "s.graphml"
    assert main(["export", "--memory", server.address, "--session", "s", "--output", str(file)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"memsvc: --output: expected to write {file}, got No such file or directory\n"


def test_an_unknown_session_leaves_no_file(
    server: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Proves that a failed export is one line and leaves nothing behind."""
    file = tmp_path / "s.graphml"
    assert main(["export", "--memory", server.address, "--session", "no", "--output", str(file)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_top_shows_what_went_on(server: ServerProcess, capsys: pytest.CaptureFixture[str]) -> None:
    """Proves that the first look goes back to the server's start, and that JSON is one object a look."""
    assert main(["top", "--http", _http(server), "--count", "2", "--interval", "0.1", "--json"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["ready"] is True
    assert first["per_s"]["tokens"] * first["seconds"] == pytest.approx(TOKENS, rel=0.01)
    assert first["durations"]["step"]["half_s"] > 0
    assert second["per_s"]["tokens"] == 0.0
    assert second["durations"]["step"]["half_s"] is None


def test_top_is_a_table_for_people(server: ServerProcess, capsys: pytest.CaptureFixture[str]) -> None:
    """Proves that a person sees state, rates and durations, without control characters in a pipe."""
    assert main(["top", "--http", _http(server), "--count", "1"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("memsvc ")
    assert "ready" in shown.splitlines()[0]
    assert "WHAT" in shown
    assert "DURATION OF" in shown
    assert "\x1b" not in shown


def test_top_of_nobody_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Proves that a wrong port is told, with exit code 1."""
    assert main(["top", "--http", "127.0.0.1:1", "--count", "1"]) == 1
    said = capsys.readouterr().err
    expected = "memsvc: expected a memory server's numbers at http://127.0.0.1:1/metrics, got Connection refused\n"
    assert said == expected


@pytest.mark.parametrize(
    "flags",
    [["--interval", "0"], ["--interval", "x"], ["--count", "0"], ["--http", "nowhere"], ["--http", "unix:///tmp/s"]],
)
def test_a_wrong_flag_of_top_is_one_line(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Proves that values out of range, and addresses that are none, are refused with exit code 2."""
    assert main(["top", *([] if "--http" in flags else ["--http", "127.0.0.1:1"]), *flags]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "expected" in said


@pytest.mark.parametrize("service", ["ready", "live", "protos.memsvc.v1.GraphService"])
def test_a_server_that_works_is_healthy(
    service: str, server: ServerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    """Proves that a health check by this command holds, for people and for programs."""
    command = ["health", "--memory", server.address, "--service", service]
    assert main(command) == 0
    assert main([*command, "--json"]) == 0
    word, record = capsys.readouterr().out.splitlines()
    assert word == "serving"
    assert json.loads(record) == {"service": service, "state": "serving"}


def test_an_unknown_service_is_one_line(server: ServerProcess, capsys: pytest.CaptureFixture[str]) -> None:
    """Proves that a mistyped service is no healthy one."""
    assert main(["health", "--memory", server.address, "--service", "nobody"]) == 1
    expected = "memsvc: --service: expected live, ready or a service of the node, got 'nobody'\n"
    assert capsys.readouterr().err == expected


def test_nobody_there_is_not_healthy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Proves that a health check fails in one line where no server is."""
    assert main(["health", "--memory", f"unix://{tmp_path}/none"]) == 1
    assert "expected a memory server at" in capsys.readouterr().err


@pytest.mark.parametrize("program", ["memsvc", "attn_client"])
@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_completion_script_is_printed(program: str, shell: str) -> None:
    """Proves that each shell that is named gets a script, which names the commands."""
    command = [sys.executable, "-m", f"{program}.cli", "completion", shell]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "serve" in ran.stdout
    assert ran.stderr == ""


def test_bash_completes_commands_flags_and_choices(tmp_path: Path) -> None:
    """Proves in a real bash that the script completes what was begun."""
    script = tmp_path / "completion"
    command = [sys.executable, "-m", "memsvc.cli", "completion", "bash"]
    script.write_text(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    completed = "".join(
        f'COMP_WORDS=(memsvc {words}); COMP_CWORD={count}; _shtab_memsvc; echo "${{COMPREPLY[*]}}"\n'
        for words, count in (("expor", 1), ("export --ses", 2), ('export --format ""', 3))
    )
    ran = subprocess.run(["bash", "-c", f"source {script}\n{completed}"], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["export", "--session", "graphml node-link"]
