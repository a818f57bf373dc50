"""The containers of one compose project, by either engine: Docker with its compose plugin, or Podman."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.compose.steps import StepFailed

# Longer than anything here takes: a call that meets it has failed.
TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Engine:
    """How containers are run here.

    Args:
        program: `docker` or `podman`.
        compose: What `docker compose` is called here.
        env: What both need in their environment.
    """

    program: str
    compose: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)

    def run(self, *command: str, given: str | None = None, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run the engine's program. Raises StepFailed with its last words if it fails and `check` is set."""
        return finished([self.program, *command], self.env, given=given, check=check)


def finished(
    command: Sequence[str], env: Mapping[str, str], *, given: str | None = None, check: bool = True
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end. Raises StepFailed with its last words if it fails and `check` is set."""
    ran = subprocess.run(
        command, env={**os.environ, **env}, input=given, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if check and ran.returncode:
        words = "\n".join((ran.stdout + ran.stderr).strip().splitlines()[-30:])
        raise StepFailed(f"expected {' '.join(command[:6])} to succeed, got exit code {ran.returncode}:\n{words}")
    return ran


class Project:
    """The services of the compose file at `root`, under a name of their own.

    Args:
        files: Compose files, the later ones change the earlier ones.
    """

    def __init__(self, engine: Engine, root: Path, name: str, files: Sequence[Path], env: Mapping[str, str]) -> None:
        self.engine, self._root, self._name = engine, root, name
        self._files = [argument for file in files for argument in ("-f", str(file))]
        self._env = {**engine.env, **env}

    def compose(self, *command: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run compose, with every profile."""
        profiles = ("--profile", "worker", "--profile", "observe")
        arguments = (*self.engine.compose, "-p", self._name, *self._files, *profiles, *command)
        return finished(arguments, self._env, check=check)

    def up(self, *services: str, scale: str | None = None) -> None:
        """Start services, and what they depend on."""
        scaled = () if scale is None else ("--scale", scale)
        self.compose("up", "-d", "--no-build", *scaled, *services)

    def down(self) -> None:
        """Remove containers, networks and volumes, as far as there are any. Raises StepFailed where some stay."""
        # Those that depend on others first: podman-compose knows no more than one container of a service.
        for service in ("grafana", "prometheus", "worker", "memsvc", "redis"):
            if found := self.ids(service):
                self.engine.run("rm", "-f", *found)
        self.compose("down", "-v", check=False)
        label = f"label=com.docker.compose.project={self._name}"
        left = self.engine.run("volume", "ls", "-q", "--filter", label).stdout.split()
        if left:
            raise StepFailed(f"expected no volume to be left, got {', '.join(left)}")

    def ids(self, service: str) -> list[str]:
        """Containers of a service, in order of their numbers."""
        labels = {"com.docker.compose.project": self._name, "com.docker.compose.service": service}
        filters = [argument for key, value in labels.items() for argument in ("--filter", f"label={key}={value}")]
        found = self.engine.run("ps", "-aq", *filters).stdout.split()
        number = "com.docker.compose.container-number"
        return sorted(found, key=lambda container: int(self.seen(container)["Config"]["Labels"][number]))

    def seen(self, container: str) -> dict[str, Any]:
        """What the engine says of a container."""
        found: dict[str, Any] = json.loads(self.engine.run("inspect", container).stdout)[0]
        return found

    def healthy(self, container: str) -> bool:
        """Whether its health check holds."""
        if self.engine.program == "docker":
            return bool(self.seen(container)["State"]["Health"]["Status"] == "healthy")
        # Podman leaves the checks to systemd, which need not be here: they are made when they are wanted.
        return self.engine.run("healthcheck", "run", container, check=False).returncode == 0

    def exec(
        self, container: str, *command: str, given: str | None = None, check: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in a container."""
        flags = ("-i",) if given is not None else ()
        return self.engine.run("exec", *flags, container, *command, given=given, check=check)

    def in_background(self, container: str, *command: str) -> "subprocess.Popen[str]":
        """Start a command in a container, and leave it to itself."""
        return subprocess.Popen(
            [self.engine.program, "exec", container, *command],
            env={**os.environ, **self._env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def kill(self, container: str) -> None:
        """End all processes of a container as a power loss of its own would."""
        self.engine.run("kill", "-s", "KILL", container)

    def start(self, container: str) -> None:
        """Start a container that was ended, if its restart policy has not yet."""
        self.engine.run("start", container)

    def port(self, container: str, inner: int) -> int:
        """Port of this machine that a container's port is published at."""
        return int(self.engine.run("port", container, f"{inner}/tcp").stdout.split()[0].rpartition(":")[2])
