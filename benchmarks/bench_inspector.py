"""How soon the inspector shows a large session, and how smoothly it moves: `python -m benchmarks.bench_inspector`.

A session of 100,000 bookmarks is made in this process (links and chains as long reading leaves them, no vectors), its
pages are served as a node serves them, and a real Chromium opens them and turns the wheel and drags for some seconds.

    first paint      of the page, as the browser tells it (first-contentful-paint)
    frames a second  that the page draws while it is moved

Without a GPU the browser draws WebGL, and so the graph, in software: what it says then is the machine's.
"""

import argparse
import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.summary import RESULTS, ROOT, Row, record
from memsvc.server import Server
from memsvc.session import Session
from memsvc.settings import ObserveSettings, ServerSettings
from protos.memsvc.v1 import types_pb2

BOOKMARKS = 100_000
SEED = 1
SECONDS = 4.0
PAINT_GOAL_MS, FRAMES_GOAL = 2000, 30
RESULT = "bench_inspector.json"
COMMAND = "python -m benchmarks.bench_inspector --record"
VIEWS = {
    "timeline": ("/sessions/large/timeline", "#timeline[data-ready]", "canvas.main"),
    "graph": ("/sessions/large/graph", "#graph[data-ready]", "#graph"),
}
ARGUMENTS = ("--no-sandbox", "--disable-background-networking", "--no-first-run", "--enable-unsafe-swiftshader")
COUNT = """() => {
  window.frames_ = 0;
  window.began_ = performance.now();
  const turn = () => { window.frames_ += 1; window.turn_ = requestAnimationFrame(turn); };
  turn();
}"""
TOLD = """() => {
  cancelAnimationFrame(window.turn_);
  return window.frames_ * 1000 / (performance.now() - window.began_);
}"""
PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime"


def main() -> None:
    """Measure, print, and record if asked to."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--bookmarks", type=int, default=BOOKMARKS)
    arguments.add_argument("--record", action="store_true", help="add the figures to benchmarks/results")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(_measured(Path(folder), options.bookmarks))
    print(json.dumps(found, indent=2))
    if options.record:
        (ROOT / RESULTS / RESULT).write_text(json.dumps({"bookmarks": options.bookmarks, **found}, indent=2) + "\n")
        record([row for view, own in found.items() for row in _rows(view, own)])


def _rows(view: str, own: dict[str, float]) -> list[Row]:
    paint, frames = own["first_paint_ms"], own["frames_per_s"]
    of = f"inspector, {view} of 100,000 bookmarks"
    return [
        Row(
            7,
            f"{of}: first paint, ms",
            paint,
            f"at most {PAINT_GOAL_MS}",
            paint <= PAINT_GOAL_MS,
            COMMAND,
            seeds=(SEED,),
        ),
        Row(
            7,
            f"{of}: frames a second",
            frames,
            f"at least {FRAMES_GOAL}",
            frames >= FRAMES_GOAL,
            COMMAND,
            seeds=(SEED,),
        ),
    ]


async def _measured(folder: Path, bookmarks: int) -> dict[str, dict[str, float]]:
    observe = ObserveSettings(http="127.0.0.1:0")
    server = await Server.start(ServerSettings(folder / "data", f"unix://{folder}/socket", observe=observe))
    try:
        sessions = server._node.sessions
        sessions.create("large", _spec())
        _grow(sessions.get("large"), bookmarks)
        return await asyncio.to_thread(_browsed, server.http_address)
    finally:
        await server.drain()


def _browsed(address: str) -> dict[str, dict[str, float]]:
    """What a browser tells of each view, opened anew."""
    from playwright.sync_api import sync_playwright

    found = {}
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=list(ARGUMENTS))
        for view, (path, ready, surface) in VIEWS.items():
            page = browser.new_context(viewport={"width": 1440, "height": 960}).new_page()
            page.goto(f"http://{address}{path}")
            page.wait_for_selector(ready)
            found[view] = {
                "first_paint_ms": round(page.evaluate(PAINT)),
                "frames_per_s": round(_moved(page, surface), 1),
            }
        browser.close()
    return found


def _moved(page: Any, surface: str) -> float:
    """Frames a second while the wheel turns and the pointer drags, by turns."""
    box = page.locator(surface).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.evaluate(COUNT)
    end, turn = time.monotonic() + SECONDS, 0
    moves: list[Callable[[int], None]] = [
        lambda at: page.mouse.wheel(0, -80 if at % 10 < 5 else 80),
        lambda at: page.mouse.move(x + 20 * at - 100, y),
    ]
    while time.monotonic() < end:
        kind, at = turn // 10 % 2, turn % 10
        if kind and at == 0:
            page.mouse.move(x, y)
            page.mouse.down()
        moves[kind](at)
        if kind and at == 9:
            page.mouse.up()
        turn += 1
    page.mouse.up()
    return float(page.evaluate(TOLD))


def _spec() -> types_pb2.SessionSpec:
    return types_pb2.SessionSpec(
        fingerprint=types_pb2.Fingerprint(
            model="a" * 64,
            dtype=types_pb2.ELEMENT_TYPE_BFLOAT16,
            sink_tokens=64,
            window_tokens=64,
            chunk_tokens=64,
            budget_blocks=4,
            streams=[types_pb2.StreamSpec(name="probe", dims=32)],
            block_bytes=4096,
        ),
        policy=types_pb2.PolicySpec(kind=types_pb2.POLICY_KIND_EVERY),
        search=types_pb2.SearchSpec(
            finder=types_pb2.FINDER_KIND_FLAT,
            trail_blocks=4,
            trail_decay=0.95,
            trail_tokens=32,
            links_max=3,
            link_similarity_min=0.3,
            centring_tokens=64,
        ),
    )


def _grow(session: Session, bookmarks: int) -> None:
    """Gives a session bookmarks as long reading would: near links, some far ones, a new chain now and then."""
    dice = np.random.default_rng(SEED)
    at = np.arange(bookmarks)
    positions = np.cumsum(dice.integers(2, 9, bookmarks)).astype(np.int64)
    near = at - 1 - dice.integers(0, 40, bookmarks)
    parents = np.full((bookmarks, 3), -1, dtype=np.int64)
    parents[:, 0] = np.where((dice.random(bookmarks) < 0.004) | (near < 0), -1, near)
    far = (dice.random(bookmarks) * at).astype(np.int64)
    second = (parents[:, 0] >= 0) & (far != parents[:, 0]) & (dice.random(bookmarks) < 0.3)
    parents[second, 1] = far[second]
    weights = np.sort(0.4 + 0.5 * dice.random((bookmarks, 3)), axis=1)[:, ::-1].astype(np.float32)
    tokens = int(positions[-1]) + 1
    state = session.core.state
    with session.core.lock:
        signal = dice.gamma(2.0, 2.0, bookmarks).astype(np.float32)
        state.graph.extend(positions, parents, weights, signal, np.zeros(bookmarks, dtype=np.bool_))
        state.tokens.append(0, tokens, dice.integers(0, 50_000, tokens).astype(np.uint32))


if __name__ == "__main__":
    main()
