"""What is wrong is said in one line, by the container that has it, and the rest goes on."""

from tests.compose.containers import Project
from tests.compose.scenario import Services
from tests.compose.steps import Steps, expect

# What is wrong, the image's service, its command, and what the line says.
_WRONG = (
    ("an address that is none", "memsvc", ("serve", "--data=/tmp/d", "--listen=nonsense"), ("HOST:PORT", "nonsense")),
    (
        "Redis missing",
        "memsvc",
        ("serve", "--data=/tmp/d", "--listen=127.0.0.1:7600", "--manifest=redis://nowhere:6379/0"),
        ("Redis", "nowhere:6379"),
    ),
    (
        "an unknown model",
        "worker",
        ("serve", "--model=/no/model", "--memory=memsvc:7600", "--http=0.0.0.0:8000"),
        ("--model", "/no/model"),
    ),
    (
        "a token that would cross the network in the clear",
        "worker",
        ("ask", "--memory=memsvc:7600", "--token-file=/no/token", "--session=shared", "--question=Who"),
        ("expected", "TLS", "memsvc:7600"),
    ),
)


def refused(services: Services, steps: Steps) -> None:
    """Settings that do not hold."""
    for what, service, command, said in _WRONG:
        with steps.step(f"{what} is one line"):
            _one_line(services, service, command, said)
    with steps.step("a port in use is one line, and the server goes on"):
        _port_in_use(services)
        expect(services.project.healthy(services.memsvc), "a healthy memsvc", "another")


def _one_line(services: Services, service: str, command: tuple[str, ...], said: tuple[str, ...]) -> None:
    project = services.project
    container = services.memsvc if service == "memsvc" else services.workers[0]
    seen = project.seen(container)
    (network,) = seen["NetworkSettings"]["Networks"]
    flags = ("--rm", "--read-only", "--tmpfs", "/tmp", "--network", network, seen["Config"]["Image"])
    ran = project.engine.run("run", *flags, *command, check=False)
    lines = [line for line in ran.stderr.splitlines() if line.strip()]
    expect(ran.returncode in (1, 2), "exit code 1 or 2", ran.returncode)
    expect(len(lines) == 1 and all(part in lines[0] for part in said), f"one line with {said}", lines)


def _port_in_use(services: Services) -> None:
    """A second server in the first one's container."""
    project: Project = services.project
    command = ("memsvc", "serve", "--data=/tmp/other", "--listen=127.0.0.1:7600")
    ran = project.exec(services.memsvc, *command, check=False)
    lines = [line for line in ran.stderr.splitlines() if "7600" in line]
    expect(ran.returncode != 0 and len(lines) == 1, "one line about port 7600", ran.stderr)
