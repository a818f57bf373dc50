"""What is done to the services once they are up: read, ask, kill, look again.

Invariant that is looked for throughout: what was acknowledged is there afterwards, byte for byte.
"""

import json
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from typing import Any

from tests.compose.containers import Project
from tests.compose.reading import FACTS, Fact, text_with_facts
from tests.compose.steps import StepFailed, Steps, expect, until

MEMORY = "memsvc:7600"
WORKERS = 3
# Leases of an earlier Redis run out before a node takes work: twice 10 s, and a start.
HEALTHY_WITHIN_S = 180.0
READ_WITHIN_S = 600.0
_TEXT = "/tmp/text.txt"
_ANSWER_TOKENS = "12"


@dataclass(frozen=True)
class Services:
    """The containers that are up."""

    project: Project
    redis: str
    memsvc: str
    workers: tuple[str, ...]

    @classmethod
    def started(cls, project: Project, steps: Steps) -> "Services":
        """Bring them up, one after the other, as the compose file's conditions say."""
        with steps.step("redis is up and healthy"):
            project.up("redis")
            (redis,) = project.ids("redis")
            until("a healthy redis", lambda: project.healthy(redis), HEALTHY_WITHIN_S)
        with steps.step("memsvc is up and healthy"):
            project.up("memsvc")
            (memsvc,) = project.ids("memsvc")
            until("a healthy memsvc", lambda: project.healthy(memsvc), HEALTHY_WITHIN_S)
        with steps.step(f"{WORKERS} workers are up and healthy"):
            project.up("worker", scale=f"worker={WORKERS}")
            workers = tuple(project.ids("worker"))
            expect(len(workers) == WORKERS, f"{WORKERS} workers", len(workers))
            for worker in workers:
                until("a healthy worker", lambda worker=worker: project.healthy(worker), HEALTHY_WITHIN_S)
        return cls(project, redis, memsvc, workers)

    def told(self, *command: str) -> Any:
        """What `memsvc COMMAND --json` says, in the server's own container."""
        ran = self.project.exec(self.memsvc, "memsvc", *command, "--memory", "127.0.0.1:7600", "--json")
        return json.loads(ran.stdout)

    def session(self, name: str) -> dict[str, Any]:
        """A session, as the server tells of it."""
        found: dict[str, Any] = self.told("sessions", "--session", name)["sessions"][0]
        return found

    def graph(self, name: str) -> str:
        """All bookmarks and links of a session, in GraphML."""
        command = ("memsvc", "export", "--memory", "127.0.0.1:7600", "--session", name)
        return self.project.exec(self.memsvc, *command).stdout

    def numbers(self, name: str) -> dict[str, float]:
        """A metric's values, by all its labels as they stand in the page."""
        port = self.project.port(self.memsvc, 7601)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        own = (line.rpartition(" ") for line in lines if line.startswith(name))
        return {labels.removeprefix(name): float(value) for labels, _, value in own}

    def give_text(self, worker: str, text: str) -> None:
        """Lay a text into a worker; only its /tmp can be written."""
        self.project.exec(worker, "sh", "-c", f"cat > {_TEXT}", given=text)

    def ingest(self, worker: str, session: str, text: str) -> dict[str, Any]:
        """A worker reads a text into a session."""
        self.give_text(worker, text)
        report: dict[str, Any] = json.loads(self.project.exec(worker, *_ingest(session)).stdout)
        return report

    def ingest_in_background(self, worker: str, session: str, text: str) -> "subprocess.Popen[str]":
        """The same, while something else happens."""
        self.give_text(worker, text)
        return self.project.in_background(worker, *_ingest(session))

    def complete(self, worker: str, session: str, fact: Fact) -> dict[str, Any]:
        """A worker's HTTP answer from a session that it has not read."""
        body = {
            "model": "smollm2",
            "prompt": f"\n{fact.question}",
            "max_tokens": int(_ANSWER_TOKENS),
            "temperature": 0,
            "session": {"name": session, "mode": "read"},
        }
        url = f"http://127.0.0.1:{self.project.port(worker, 8000)}/v1/completions"
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=READ_WITHIN_S) as answer:
            said: dict[str, Any] = json.loads(answer.read())
        return said

    def ask(self, worker: str, session: str, fact: Fact) -> dict[str, Any]:
        """A worker answers from a session that it has not read."""
        command = ("attn-client", "ask", "--memory", MEMORY, "--session", session, "--max-tokens", _ANSWER_TOKENS)
        ran = self.project.exec(worker, *command, "--question", fact.question, "--json")
        answer: dict[str, Any] = json.loads(ran.stdout)
        return answer


def hardened(services: Services, steps: Steps) -> None:
    """The server's container grants as little as the compose file says."""
    with steps.step("memsvc is no root, and cannot write beside its data"):
        project, memsvc = services.project, services.memsvc
        user = project.exec(memsvc, "id", "-u").stdout.strip()
        expect(user == "10001", "user 10001", user)
        for path in ("/written", "/opt/memsvc/written"):
            ran = project.exec(memsvc, "touch", path, check=False)
            expect(ran.returncode != 0, f"{path} to be refused", "a file")
        status = project.exec(memsvc, "grep", "CapEff", "/proc/1/status").stdout.split()[1]
        expect(int(status, 16) == 0, "no capability", status)


def shared(services: Services, steps: Steps) -> None:
    """One worker reads; the others, which have read nothing, answer; blocks cross in shared memory, or in messages."""
    with steps.step("worker 1 reads a text"):
        report = services.ingest(services.workers[0], "shared", text_with_facts(9_000))
        steps.note(f"{report['tokens']} tokens, {report['tokens_per_s']} a second, {report['bookmarks']} bookmarks")
        expect(not report["degraded"], "a session without gaps", report["degraded_reasons"])
    for worker, fact in zip(services.workers[1:], FACTS, strict=False):
        with steps.step(f"another worker answers: {fact.question}"):
            before = services.numbers("memsvc_fetch_bytes_total")
            _answered(services.ask(worker, "shared", fact), fact, steps)
            risen = _risen(before, services.numbers("memsvc_fetch_bytes_total"))
            expect(risen["arena"] > 0 and risen["grpc"] == 0, "blocks in shared memory alone", risen)
    with steps.step("a worker answers by HTTP, as OpenAI's API has it"):
        began_s = time.monotonic()
        said = services.complete(services.workers[2], "shared", FACTS[0])
        seconds = round(time.monotonic() - began_s, 3)
        _answered({"answer": said["choices"][0]["text"], "seconds": seconds, **_kept(said["memory"])}, FACTS[0], steps)
    with steps.step("memsvc search finds a passage through a worker"):
        command = ("search", "--session", "shared", "--worker", "http://worker:8000", FACTS[1].question)
        found = services.told(*command)["passages"]
        steps.note(f"{len(found)} passages, the best at position {found[0]['positions'][0]}")
    with steps.step("a worker that shares no memory answers"):
        before = services.numbers("memsvc_fetch_bytes_total")
        _answered(_asked_apart(services, FACTS[2]), FACTS[2], steps)
        risen = _risen(before, services.numbers("memsvc_fetch_bytes_total"))
        expect(risen["grpc"] > 0 and risen["arena"] == 0, "blocks in messages alone", risen)


def killed(services: Services, steps: Steps, victim: str) -> None:
    """Kill `memsvc` or `redis` while a worker reads: the reading ends well, and nothing is lost."""
    name, container = f"through-{victim}", getattr(services, victim)
    graph, before = services.graph("shared"), services.session("shared")
    with steps.step(f"{victim} is killed while worker 2 reads"):
        text = text_with_facts(10_000, begin=20_000)
        reading = services.ingest_in_background(services.workers[1], name, text)
        until("some of the text in memory", lambda: _tokens(services, name) >= 512, READ_WITHIN_S)
        acknowledged = services.session(name)
        services.project.kill(container)
        services.project.start(container)
        until(f"a healthy {victim}", lambda: services.project.healthy(container), HEALTHY_WITHIN_S)
        until("a healthy memsvc", lambda: services.project.healthy(services.memsvc), HEALTHY_WITHIN_S)
        said, _ = reading.communicate(timeout=READ_WITHIN_S)
        expect(reading.returncode == 0, "the reading to end well", said)
        report = json.loads(said.splitlines()[-1])
    with steps.step(f"nothing that was acknowledged before {victim} was killed is lost"):
        after = services.session(name)
        steps.note(f"{acknowledged['tokens']} tokens before the kill, {after['tokens']} now, {report['tokens']} read")
        expect(after["tokens"] == report["position"], f"{report['position']} tokens", after["tokens"])
        expect(not after["token_gaps"] and not after["block_gaps"], "no gaps", after)
        expect(services.session("shared")["tokens"] == before["tokens"], f"{before['tokens']} tokens", "others")
        expect(services.graph("shared") == graph, "the same bookmarks and links", "others")
        damage = services.told("verify")
        expect(not damage["damaged"], "a whole data folder", damage)
    with steps.step(f"worker 3 answers after {victim} was killed"):
        _answered(services.ask(services.workers[2], "shared", FACTS[0]), FACTS[0], steps)
        _answered(services.ask(services.workers[2], name, FACTS[1]), FACTS[1], steps)


def _ingest(session: str) -> tuple[str, ...]:
    return ("attn-client", "ingest", "--memory", MEMORY, "--session", session, "--file", _TEXT, "--json")


def _asked_apart(services: Services, fact: Fact) -> dict[str, Any]:
    """Ask in a container of the workers' image and network that has no part of /dev/shm in common with the server."""
    seen = services.project.seen(services.workers[0])
    (network,) = seen["NetworkSettings"]["Networks"]
    flags = ("--rm", "--read-only", "--tmpfs", "/tmp", "--network", network, seen["Config"]["Image"])
    command = ("ask", "--memory", MEMORY, "--session", "shared", "--max-tokens", _ANSWER_TOKENS)
    ran = services.project.engine.run("run", *flags, *command, "--question", fact.question, "--json")
    answer: dict[str, Any] = json.loads(ran.stdout)
    return answer


def _answered(answer: dict[str, Any], fact: Fact, steps: Steps) -> None:
    said = " ".join(answer["answer"].split())
    steps.note(f"{said!r}, {len(answer['recalled'])} blocks recalled, {answer['seconds']} s")
    expect(not answer["degraded"], "an answer from memory", answer["degraded_reasons"])
    expect(said.lower().startswith(fact.answer.lower()), fact.answer, said)


def _kept(memory: dict[str, Any]) -> dict[str, Any]:
    """What an HTTP answer says of memory, as `attn-client ask` says it."""
    blocks = memory["recalled"]["blocks"] if memory["recalled"] is not None else []
    return {"recalled": blocks, "degraded": memory["degraded"], "degraded_reasons": memory["degraded_reasons"]}


def _risen(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {path: after[f'{{path="{path}"}}'] - before[f'{{path="{path}"}}'] for path in ("arena", "grpc")}


def _tokens(services: Services, name: str) -> int:
    """Tokens of a session; 0 while it is not there."""
    try:
        return int(services.session(name)["tokens"])
    except StepFailed:
        return 0
