"""`memsvc search`: passages of a session that resemble a text, by the vectors of a worker that has the session's model.

A server has no model, so the text is given to a worker (`attn-client serve`), which reads it in a view of the session
and is told what that recalls. Blocks that the worker's window holds are not recalled; `attn-client search` looks there
too, and shows the passages' text.
"""

import argparse
import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from memsvc.cli.dial import add_dialling, dial
from memsvc.cli.read import ReadFailed, explained
from memsvc.cli.shape import positions_of, table
from memsvc.errors import InvalidRequest
from memsvc.geometry import BLOCK_TOKENS
from protos.memsvc.v1 import graph_pb2, graph_pb2_grpc, types_pb2

TIMEOUT_S = 120.0
# A worker recalls no more than its budget, which is part of what its sessions are fixed to; this is the default one.
BEST_MAX = 24
# The newest so many tokens vote; a word is one at least. Said so often, a text leaves what stood before it no vote.
TRAIL_TOKENS = 128

Record = dict[str, Any]


def add_search(command: argparse.ArgumentParser) -> None:
    """Flags of `memsvc search`."""
    add_dialling(command)
    command.add_argument("text", metavar="TEXT", help="what to look for")
    command.add_argument("--session", required=True, metavar="NAME")
    command.add_argument(
        "--worker", required=True, type=_worker, metavar="URL", help="of a worker that has the session's model"
    )
    command.add_argument("--api-key-file", type=Path, metavar="FILE", help="file with the worker's key, if it asks one")
    command.add_argument(
        "--best", type=_best, default=5, metavar="N", help=f"blocks, 1 to {BEST_MAX}, within the worker's --budget (5)"
    )
    command.add_argument("--json", action="store_true", help="one JSON object instead of a table")


def run_search(options: argparse.Namespace) -> None:
    """Ask the worker, look up the tokens, and print both. Raises ReadFailed, InvalidRequest."""
    found = _recalled(options)
    with dial(options) as channel:
        stub = graph_pb2_grpc.GraphServiceStub(channel)
        try:
            passages = [{**one, "ids": _ids(stub, options.session, one["block"])} for one in found]
        except grpc.RpcError as error:
            raise ReadFailed(explained(error, options.memory)) from error
    if options.json:
        print(json.dumps({"session": options.session, "text": options.text, "passages": passages}))
        return
    heads = ("BLOCK", "POSITIONS", "SCORE", "Z", "TOKENS")
    print(table(heads, map(_row, passages)))


def _row(one: Record) -> tuple[object, ...]:
    first, last = one["positions"]
    return one["block"], f"{first}-{last}", f"{one['score']:.3f}", f"{one['z']:.2f}", len(one["ids"])


def _recalled(options: argparse.Namespace) -> list[Record]:
    """Blocks that reading the text in a view recalls, best first."""
    words = max(1, len(options.text.split()))
    model = _asked(options, "/v1/models", None)["data"][0]["id"]
    request = {
        "model": model,
        "prompt": "\n".join([options.text] * max(1, -(-TRAIL_TOKENS // words))),
        "max_tokens": 1,
        "temperature": 0,
        "session": {"name": options.session, "mode": "read"},
        # Hops would bring blocks that resemble something else, and ask for more blocks than a few.
        "memory": {"top_blocks": options.best, "neighbours": 0, "hops": 0},
    }
    memory = _asked(options, "/v1/completions", request)["memory"]
    if memory["degraded"] or memory["recalled"] is None:
        reasons = "; ".join(memory["degraded_reasons"]) or "nothing recalled"
        raise ReadFailed(f"expected a recall through {options.worker}, got: {reasons}")
    blocks: list[Record] = memory["recalled"]["blocks"]
    return [_passage(one) for one in blocks[: options.best]]


def _passage(one: Record) -> Record:
    return {"block": one["block"], "positions": positions_of(one["block"]), "score": one["score"], "z": one["z"]}


def _asked(options: argparse.Namespace, path: str, body: Record | None) -> Any:
    expected = f"expected a worker at {options.worker}"
    headers = {"Content-Type": "application/json"}
    if options.api_key_file is not None:
        headers["Authorization"] = f"Bearer {_key(options.api_key_file)}"
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(f"{options.worker.rstrip('/')}{path}", data, headers)
    try:
        # As `memsvc top`: a proxy is for other networks, and would be told the text and the key.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise ReadFailed(f"{expected} that takes the request, got status {error.code}: {_said(error)}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ReadFailed(f"{expected}, got {getattr(reason, 'strerror', None) or reason}") from error


def _said(error: urllib.error.HTTPError) -> str:
    """The message of an error in OpenAI's shape, or the status in words."""
    try:
        return str(json.loads(error.read())["error"]["message"])
    except (OSError, ValueError, KeyError, TypeError):
        return error.reason


def _key(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        expected = f"--api-key-file: expected a file that can be read, got {error.strerror}, at {path}"
        raise InvalidRequest(expected, reason="INVALID_SETTING") from None


def _ids(stub: graph_pb2_grpc.GraphServiceStub, session: str, block: int) -> list[int]:
    positions = types_pb2.Range(first=block * BLOCK_TOKENS, count=BLOCK_TOKENS)
    request = graph_pb2.ReadTokensRequest(session=session, positions=positions)
    ids: list[int] = np.frombuffer(stub.ReadTokens(request, timeout=TIMEOUT_S).ids, "<u4").tolist()
    return ids


def _worker(told: str) -> str:
    try:
        url = urllib.parse.urlsplit(told)
        holds = url.scheme in ("http", "https") and bool(url.hostname)
    except ValueError:
        holds = False
    if not holds:
        raise argparse.ArgumentTypeError(f"expected http://HOST:PORT, got {told!r}")
    return told


def _best(told: str) -> int:
    if not told.isascii() or not told.isdigit() or not 1 <= int(told) <= BEST_MAX:
        raise argparse.ArgumentTypeError(f"expected 1 to {BEST_MAX}, got {told!r}")
    return int(told)
