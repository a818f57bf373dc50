"""Compose files, Dockerfile and what is deployed beside them: what they name is there, and they grant little."""

import argparse
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from attn_client.cli.arguments import parser as attn_parser
from memsvc.cli.entry import _parser as memsvc_parser
from memsvc.metrics.catalogue import METRICS, PROCESS_METRICS, MetricSpec
from tests.repo.sources import ROOT

SERVICES = ("redis", "memsvc", "worker", "prometheus", "grafana")
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "memsvc.json"
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
_VARIABLE = re.compile(r"\$\{\w+:?-([^}]*)\}")
_METRIC = re.compile(r"\b(memsvc_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!=|=)\s*"([^"]*)"')
_GROUPING = re.compile(r"\bby \(([^)]*)\)")
# Labels that Prometheus itself adds.
_ADDED = {"instance", "job", "le"}


def _compose(name: str = "docker-compose.yml") -> dict[str, Any]:
    """A compose file, each variable replaced by its default."""
    loaded: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(r"\1", (ROOT / name).read_text()))
    return loaded


def _expressions() -> Iterator[tuple[str, str]]:
    """Every expression over metrics that is deployed, and where it stands."""
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    board = json.loads(DASHBOARD.read_text())
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for annotation in board["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]
    for variable in board["templating"]["list"]:
        yield variable["name"], variable["query"]["query"]


def _spec(name: str) -> MetricSpec | None:
    """The metric that a name belongs to, also by what a histogram's parts are called."""
    known = {own.name: own for own in (*METRICS, *PROCESS_METRICS)}
    if name in known:
        return known[name]
    base, _, part = name.rpartition("_")
    spec = known.get(base)
    return spec if spec is not None and spec.kind == "histogram" and part in ("bucket", "count", "sum") else None


def test_every_metric_that_is_deployed_exists() -> None:
    """Proves that alerts and dashboard name only metrics, labels and label values that a server has."""
    wrong = []
    for place, expression in _expressions():
        labels = set(_ADDED)
        for name, matchers in _METRIC.findall(expression):
            spec = _spec(name)
            if spec is None:
                wrong.append(f"{place}: no metric {name}")
                continue
            labels |= set(spec.labels)
            for label, value in _MATCHER.findall(matchers):
                if label not in {*spec.labels, *_ADDED}:
                    wrong.append(f"{place}: {name} has no label {label}")
                known = set(spec.values) if label in spec.labels else set()
                wrong += [f"{place}: {name} is never {one}" for one in value.split("|") if known and one not in known]
        grouped = {label.strip() for group in _GROUPING.findall(expression) for label in group.split(",")}
        wrong += [f"{place}: nothing has a label {label}" for label in sorted(grouped - labels)]
    assert wrong == []


def test_every_metric_of_the_server_is_on_the_dashboard_or_not_worth_it() -> None:
    """Proves that a metric that is added is not forgotten on the dashboard; what never changes is left out."""
    shown = {spec.name for _, expr in _expressions() for name, _ in _METRIC.findall(expr) if (spec := _spec(name))}
    assert {own.name for own in (*METRICS, *PROCESS_METRICS)} - shown == {"memsvc_build_info"}


def test_reasons_in_alerts_are_reasons_of_errors() -> None:
    """Proves that an alert on a reason can fire: the word stands in the tree of errors."""
    errors = (ROOT / "memsvc" / "errors.py").read_text()
    named = re.findall(r'reason=~"([^"]*)"', ALERTS.read_text())
    assert named
    assert [reason for alternatives in named for reason in alternatives.split("|") if f'"{reason}"' not in errors] == []


def test_every_alert_says_what_came_and_what_to_do() -> None:
    """Proves that whoever is woken reads what is wrong, where, and a next step."""
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
            assert "$labels.instance" in rule["annotations"]["summary"], rule["alert"]
            assert rule["annotations"]["advice"], rule["alert"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_granted_little(name: str) -> None:
    """Proves for each service: nothing to write to, no capabilities, no new privileges, ports for this machine."""
    service = _compose()["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


@pytest.mark.parametrize("name", ["redis", "memsvc", "worker"])
def test_a_service_has_a_health_check(name: str) -> None:
    """Proves that an engine can tell whether the service works."""
    assert _compose()["services"][name]["healthcheck"]["test"][0] == "CMD"


def test_profiles_hold_what_is_optional() -> None:
    """Proves that without a profile Redis and the server come up, and nothing else."""
    services = _compose()["services"]
    assert [name for name in SERVICES if "profiles" not in services[name]] == ["redis", "memsvc"]
    assert services["worker"]["profiles"] == ["worker"]
    assert [services[name]["profiles"] for name in ("prometheus", "grafana")] == [["observe"]] * 2


def test_named_volumes_are_declared_and_files_are_there() -> None:
    """Proves that nothing is mounted that nobody made."""
    compose = _compose()
    for service in compose["services"].values():
        for volume in service.get("volumes", ()):
            source = volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
            assert source in compose["volumes"] or (ROOT / source).exists(), volume


@pytest.mark.parametrize(
    ("file", "service", "command"),
    [
        ("docker-compose.yml", "memsvc", memsvc_parser),
        ("docker-compose.yml", "worker", attn_parser),
        ("docker-compose.gpu.yml", "worker", attn_parser),
    ],
)
def test_commands_in_the_compose_files_are_understood(file: str, service: str, command: Any) -> None:
    """Proves that flags of the compose files are flags of the programs."""
    options: argparse.Namespace = command().parse_args(_compose(file)["services"][service]["command"])
    assert options.command == "serve"


def test_the_override_that_lets_others_in_is_understood() -> None:
    """Proves that its commands are understood, what they name is mounted, and the numbers are where others look."""
    (text,) = re.findall(r"(?s)```yaml\n(.*?)```", (ROOT / "docs" / "COMPOSE.md").read_text())
    override = yaml.safe_load(text)
    for name, command in (("memsvc", memsvc_parser), ("worker", attn_parser)):
        service = override["services"][name]
        words = [*service["command"], *service.get("healthcheck", {}).get("test", ())]
        named = {word.rpartition("/run/secrets/")[2] for word in words if "/run/secrets/" in word}
        assert named == set(service["secrets"]) <= override["secrets"].keys()
        assert "insecure" not in " ".join(service["command"])
        kept = {word for word in _compose()["services"][name]["command"] if word.startswith(("--http", "--m"))}
        assert kept <= set(service["command"])
        command().parse_args(service["command"])
    memsvc_parser().parse_args(override["services"]["memsvc"]["healthcheck"]["test"][2:])


def test_every_variable_of_the_compose_files_is_in_the_table() -> None:
    """Proves that whoever looks for a setting in docs/COMPOSE.md finds it there."""
    used = {
        name
        for file in ("docker-compose.yml", "docker-compose.gpu.yml")
        for name in re.findall(r"\$\{(\w+)", (ROOT / file).read_text())
    }
    rows = "\n".join(re.findall(r"(?m)^\| `[A-Z].*$", (ROOT / "docs" / "COMPOSE.md").read_text()))
    assert used == set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", rows))


def test_the_health_check_is_a_command_of_the_program() -> None:
    """Proves that the image's health check asks over gRPC by a command that there is."""
    test = _compose()["services"]["memsvc"]["healthcheck"]["test"]
    assert test[1] == "memsvc"
    options = memsvc_parser().parse_args(test[2:])
    assert (options.command, options.memory) == ("health", "127.0.0.1:7600")


def test_images_run_as_a_number_that_is_not_root() -> None:
    """Proves that the last user of every image is 10001: workers and server share memory by it."""
    stages = re.split(r"(?m)^FROM ", (ROOT / "Dockerfile").read_text())
    final = {stage.splitlines()[0].rpartition(" ")[2]: stage for stage in stages[1:]}
    for name in ("memsvc", "worker"):
        assert re.findall(r"(?m)^USER (\S+)", final[name]) == ["10001:10001"], name
        assert final[name].rindex("\nUSER ") > final[name].rindex("\nRUN "), name


def test_what_the_images_copy_is_there_and_not_ignored() -> None:
    """Proves that a build finds its files in its context."""
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in re.findall(r"(?m)^COPY (?!--from)(.*)$", (ROOT / "Dockerfile").read_text()):
        for source in line.split()[:-1]:
            assert source.split("/")[0] in allowed, source
            assert (ROOT / source).exists(), source


def test_extras_of_the_images_are_extras_of_the_project() -> None:
    """Proves that a build does not end with an unknown extra."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    text = (ROOT / "Dockerfile").read_text()
    (server,) = re.findall(r"dependencies\.py pyproject\.toml ((?:[a-z]+ )+)>", text)
    (worker,) = re.findall(r'ARG WORKER_EXTRAS="([^"]*)"', text)
    gpu = _compose("docker-compose.gpu.yml")["services"]["worker"]["build"]["args"]["WORKER_EXTRAS"]
    assert set(f"{server} {worker} {gpu}".split()) <= extras.keys()


def test_dependencies_of_an_extra_are_those_of_the_extras_in_it() -> None:
    """Proves that an image installs what an extra stands for, and that an unknown extra is one line."""
    command = [sys.executable, str(ROOT / "deploy" / "dependencies.py"), str(ROOT / "pyproject.toml")]
    ran = subprocess.run([*command, "demo"], capture_output=True, text=True, check=True)
    names = {re.split(r"[^a-z0-9-]", line)[0] for line in ran.stdout.splitlines()}
    assert {"accelerate", "torch", "hnswlib", "grpcio"} <= names
    assert "bookmark-attention" not in names
    wrong = subprocess.run([*command, "nobody"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stdout, len(wrong.stderr.splitlines())) == (2, "", 1)


def test_dashboard_and_source_of_numbers_name_each_other() -> None:
    """Proves that Grafana's dashboard reads from the source that is provisioned, which is the service of that name."""
    folder = ROOT / "deploy" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    board = json.loads(DASHBOARD.read_text())
    used = {panel["datasource"]["uid"] for panel in board["panels"] if panel["type"] != "row"}
    assert used == {source["uid"]}
    (provider,) = yaml.safe_load((folder / "dashboards" / "memsvc.yml").read_text())["providers"]
    assert (
        f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in _compose()["services"]["grafana"]["volumes"]
    )


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    """Proves that every panel can be seen."""
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + across, place["y"] + down) for across in range(place["w"]) for down in range(place["h"])}
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells
