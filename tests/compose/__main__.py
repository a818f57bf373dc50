"""`make compose-test`: the compose file brought up for real, driven, and hurt; one line a step.

Exit codes: 0 everything held, 1 something did not, or could not be tried.
"""

import argparse
import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.compose import observing, refusals, scenario
from tests.compose.containers import Engine, Project
from tests.compose.podman import build, let_go, podman
from tests.compose.steps import StepFailed, Steps

ROOT = Path(__file__).resolve().parents[2]
IMAGES = {"memsvc": "localhost/bookmark-memsvc:latest", "worker": "localhost/bookmark-worker:latest"}
NAME = "bookmark-compose-test"
# Free ports of this machine, so that services that run already are not in the way.
PORTS = {"MEMSVC_PORT": "", "MEMSVC_HTTP_PORT": "", "PROMETHEUS_PORT": ""}


def main() -> int:
    """Run everything; the exit code."""
    parser = argparse.ArgumentParser(prog="compose-test", description="Bring the compose file up, and drive it.")
    parser.add_argument("--keep", action="store_true", help="leave the containers up when something fails")
    parser.add_argument("--no-build", action="store_true", help="with the images that there are")
    options = parser.parse_args()
    steps = Steps()
    # Also then everything is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        with _project(steps, build_images=not options.no_build, keep=options.keep) as project:
            _drive(project, steps)
    except (StepFailed, OSError) as error:
        print(f"compose-test: {error}", file=sys.stderr)
        return 1
    steps.note("everything held")
    return 0


def _drive(project: Project, steps: Steps) -> None:
    services = scenario.Services.started(project, steps)
    scenario.hardened(services, steps)
    scenario.shared(services, steps)
    for victim in ("memsvc", "redis"):
        scenario.killed(services, steps, victim)
    observing.observed(services, steps)
    observing.inspected(services, steps)
    refusals.refused(services, steps)


@contextlib.contextmanager
def _project(steps: Steps, *, build_images: bool, keep: bool) -> Iterator[Project]:
    engine = _docker() or podman(ROOT, steps)
    env = PORTS if engine.program == "docker" else {**PORTS, **_podman_env()}
    project = Project(engine, ROOT, NAME, [ROOT / "docker-compose.yml"], env)
    # What an earlier run left up.
    project.down()
    if build_images:
        for target, image in IMAGES.items():
            with steps.step(f"image of {target}"):
                if engine.program == "docker":
                    project.compose("build", target)
                else:
                    build(engine, ROOT, target, image)
    try:
        yield project
    except BaseException:
        _show_logs(project)
        if keep:
            raise
        project.down()
        raise
    with steps.step("everything is removed"):
        project.down()
        let_go(ROOT)


def _docker() -> Engine | None:
    """Docker, if its engine answers and it has compose."""
    if shutil.which("docker") is None:
        return None
    answers = (["docker", "info"], ["docker", "compose", "version"])
    ran = (subprocess.run(command, capture_output=True, check=False).returncode for command in answers)
    return Engine("docker", ("docker", "compose")) if not any(ran) else None


def _podman_env() -> Mapping[str, str]:
    # Podman 4 takes a size for a quota of the disk, and refuses it.
    return {"ARENAS_MOUNT": "mode=1777,uid=10001,gid=10001"}


def _show_logs(project: Project) -> None:
    for service in ("redis", "memsvc", "worker"):
        for container in project.ids(service):
            ran = project.engine.run("logs", "--tail", "20", container, check=False)
            print(f"--- {service} {container}\n{ran.stdout}{ran.stderr}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
