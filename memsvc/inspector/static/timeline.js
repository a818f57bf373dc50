// A session's timeline: positions across, checkpoints up. It draws what it has, and asks for what it lacks.
(function () {
  "use strict";
  const host = document.getElementById("timeline");
  if (!host) return;
  const session = host.dataset.session;
  const canvas = host.querySelector("canvas.main");
  const map = host.querySelector("canvas.map");
  const told = document.getElementById("range");
  const LANES = 26;
  const LEFT = 92;
  const RIGHT = 14;
  const TOKEN_WIDTH = 26;
  const BANDS = 9;
  const state = { view: null, first: 0, end: 1, length: 1, picked: null, hover: null, links: null, asked: 0, colors: null };
  let dirty = false;
  let timer = 0;

  function resize() {
    const ratio = window.devicePixelRatio || 1;
    for (const one of [canvas, map]) {
      const box = one.getBoundingClientRect();
      one.width = Math.max(1, Math.round(box.width * ratio));
      one.height = Math.max(1, Math.round(box.height * ratio));
      one.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
    }
    redraw();
  }

  function redraw() {
    if (dirty) return;
    dirty = true;
    requestAnimationFrame(() => {
      dirty = false;
      draw();
    });
  }

  function theme() {
    const names = ["text", "dim", "line", "panel", "raised", "accent", "cool", "hot", "grid"];
    state.colors = Object.fromEntries(names.map((name) => [name, inspector.color(`--${name}`)]));
    state.chains = inspector.chains();
    redraw();
  }

  const span = () => state.end - state.first;
  const inner = (width) => width - LEFT - RIGHT;
  const xOf = (position, width) => LEFT + ((position - state.first) / span()) * inner(width);
  const close = (width) => Boolean(state.view && state.view.passage) && inner(width) / span() >= TOKEN_WIDTH;
  const positionAt = (x, width) => state.first + ((x - LEFT) / inner(width)) * span();

  // Where things stand, from the bottom: axis, recalls, density, bookmarks by topic, checkpoints.
  function layout(height) {
    const axis = height - 24;
    const heat = axis - 20;
    const density = heat - 10;
    const score = density - 64;
    const heights = Math.max(1, ...(state.view ? state.view.nodes.height : [0]), 2);
    const top = 22 + heights * LANES;
    return { axis, heat, density, score, top, heights };
  }

  // Each of the largest chains has a band of its own, and the rest share one; within a band bookmarks scatter.
  function bands(view) {
    const counts = new Map();
    for (const chain of view.nodes.chain) counts.set(chain, (counts.get(chain) || 0) + 1);
    const order = [...counts.entries()].sort((left, right) => right[1] - left[1] || left[0] - right[0]);
    const own = order.slice(0, BANDS).map(([chain, count]) => ({ chain, share: Math.sqrt(count) }));
    const rest = order.slice(BANDS).reduce((sum, [, count]) => sum + count, 0);
    if (rest) own.push({ chain: null, share: Math.sqrt(rest) });
    const whole = own.reduce((sum, one) => sum + one.share, 0) || 1;
    let from = 0;
    for (const one of own) {
      one.from = from / whole;
      from += one.share;
      one.to = from / whole;
    }
    const byChain = new Map(own.map((one) => [one.chain, one]));
    const of = view.nodes.chain.map((chain) => byChain.get(chain) || byChain.get(null));
    // The golden ratio scatters consecutive indices evenly.
    view.scatter = view.nodes.index.map((index, at) => {
      const spread = 0.16 + 0.68 * ((index * 0.618033988749895) % 1);
      return of[at].from + (of[at].to - of[at].from) * spread;
    });
    view.bands = own;
  }

  const yInBand = (at, own) => own.top + 10 + state.view.scatter[at] * (own.score - own.top - 18);

  function yOf(at, own) {
    const height = state.view.nodes.height[at];
    return height > 0 ? own.top - (height - 0.5) * LANES : yInBand(at, own);
  }

  function draw() {
    if (!state.colors) return;
    drawMap();
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    const pen = canvas.getContext("2d");
    const own = layout(height);
    pen.clearRect(0, 0, width, height);
    pen.font = "11px Inter, system-ui, sans-serif";
    drawLanes(pen, width, own);
    if (!state.view) return;
    pen.save();
    pen.beginPath();
    pen.rect(LEFT, 0, inner(width), height);
    pen.clip();
    drawBins(pen, width, own);
    drawRecalls(pen, width, own);
    drawLinks(pen, width, own);
    drawNodes(pen, width, own);
    drawTokens(pen, width, own);
    pen.restore();
    drawAxis(pen, width, own);
    tell();
  }

  function drawLanes(pen, width, own) {
    const { colors } = state;
    const every = state.view ? state.view.checkpoints_every : [];
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (let level = 1; level <= own.heights; level += 1) {
      const y = own.top - (level - 0.5) * LANES;
      pen.strokeStyle = colors.grid;
      pen.beginPath();
      pen.moveTo(LEFT, Math.round(y) + 0.5);
      pen.lineTo(width - RIGHT, Math.round(y) + 0.5);
      pen.stroke();
      pen.fillStyle = colors.dim;
      pen.fillText(every.length ? `1 in ${every[level - 1]}` : "", LEFT - 12, y);
    }
    pen.fillStyle = colors.dim;
    const tall = own.score - own.top - 18;
    for (const band of state.view ? state.view.bands : []) {
      const y = own.top + 10 + ((band.from + band.to) / 2) * tall;
      if ((band.to - band.from) * tall < 13) continue;
      pen.fillStyle = band.chain === null ? colors.dim : state.chains[band.chain % 12];
      pen.fillText(band.chain === null ? "other chains" : `chain ${band.chain}`, LEFT - 12, y);
      if (band.from > 0) {
        pen.fillStyle = colors.grid;
        pen.fillRect(LEFT, Math.round(own.top + 10 + band.from * tall), inner(width), 1);
      }
    }
    pen.fillStyle = colors.dim;
    pen.fillText(close(width) ? "tokens" : "density", LEFT - 12, own.density - 24);
    pen.fillText("recalled", LEFT - 12, own.heat + 7);
  }

  function drawBins(pen, width, own) {
    const { bins } = state.view;
    const { colors } = state;
    const top = Math.max(1, ...bins.bookmarks);
    const hottest = Math.max(1, ...bins.heat);
    pen.fillStyle = colors.cool;
    pen.globalAlpha = close(width) ? 0 : 0.35;
    pen.beginPath();
    pen.moveTo(xOf(bins.first, width), own.density);
    bins.bookmarks.forEach((value, at) => {
      const y = own.density - (value / top) * 52;
      pen.lineTo(xOf(bins.first + at * bins.tokens, width), y);
      pen.lineTo(xOf(bins.first + (at + 1) * bins.tokens, width), y);
    });
    pen.lineTo(xOf(bins.first + bins.bookmarks.length * bins.tokens, width), own.density);
    pen.fill();
    pen.globalAlpha = 1;
    pen.fillStyle = colors.raised;
    pen.fillRect(LEFT, own.heat, inner(width), 14);
    pen.fillStyle = colors.accent;
    bins.heat.forEach((value, at) => {
      if (!value) return;
      pen.globalAlpha = 0.25 + 0.75 * (value / hottest);
      const x = xOf(bins.first + at * bins.tokens, width);
      pen.fillRect(x, own.heat, Math.max(1.5, xOf(bins.first + (at + 1) * bins.tokens, width) - x), 14);
    });
    pen.globalAlpha = 1;
  }

  function drawRecalls(pen, width, own) {
    const { colors, view } = state;
    const newest = view.recalls[0];
    if (!newest) return;
    const from = xOf(newest.asked_at, width);
    pen.strokeStyle = colors.accent;
    pen.lineWidth = 1.2;
    pen.globalAlpha = 0.5;
    for (const block of newest.blocks) {
      const to = xOf(block * 64 + 32, width);
      if (Math.max(from, to) < LEFT || Math.min(from, to) > width || Math.abs(from - to) > 40 * width) continue;
      const depth = Math.min(own.score - own.top, 40 + Math.abs(from - to) * 0.25);
      pen.beginPath();
      pen.moveTo(from, own.heat);
      pen.bezierCurveTo(from, own.heat - depth, to, own.heat - depth, to, own.heat);
      pen.stroke();
    }
    pen.globalAlpha = 1;
    pen.lineWidth = 1;
    pen.fillStyle = colors.accent;
    for (const recall of view.recalls) {
      const x = xOf(recall.asked_at, width);
      pen.beginPath();
      pen.moveTo(x, own.heat - 1);
      pen.lineTo(x - 4, own.heat - 8);
      pen.lineTo(x + 4, own.heat - 8);
      pen.fill();
    }
  }

  function drawNodes(pen, width, own) {
    const { nodes } = state.view;
    const crowd = nodes.index.length / inner(width);
    const radius = close(width) ? 5 : crowd > 2 ? 1.4 : crowd > 0.5 ? 2 : 3;
    for (let at = 0; at < nodes.index.length; at += 1) {
      const x = xOf(nodes.position[at], width);
      if (x < LEFT - 4 || x > width) continue;
      const y = yOf(at, own);
      pen.fillStyle = state.chains[nodes.chain[at] % 12];
      if (nodes.height[at] > 0) {
        const half = 2.5 + Math.min(3.5, nodes.height[at]);
        pen.beginPath();
        pen.moveTo(x, y - half);
        pen.lineTo(x + half, y);
        pen.lineTo(x, y + half);
        pen.lineTo(x - half, y);
        pen.fill();
        // A checkpoint is a bookmark too.
        pen.globalAlpha = 0.9;
        const row = yInBand(at, own);
        pen.fillRect(x - radius, row - radius, 2 * radius, 2 * radius);
        pen.globalAlpha = 1;
      } else {
        pen.fillRect(x - radius, y - radius, 2 * radius, 2 * radius);
      }
      if (nodes.index[at] === state.picked || nodes.index[at] === state.hover) {
        pen.strokeStyle = state.colors.text;
        pen.lineWidth = 1.5;
        pen.beginPath();
        pen.arc(x, y, 7, 0, 2 * Math.PI);
        pen.stroke();
        pen.lineWidth = 1;
      }
    }
  }

  function drawLinks(pen, width, own) {
    if (!state.links) return;
    const from = xOf(state.links.position, width);
    const at = state.view.nodes.index.indexOf(state.picked);
    const middle = at < 0 ? (own.top + own.score) / 2 : yInBand(at, own);
    const arcs = [
      ...state.links.parents.map((one) => [one, state.colors.cool]),
      ...state.links.children.map((one) => [one, state.colors.hot]),
    ];
    for (const [one, color] of arcs) {
      const to = xOf(one.position, width);
      pen.strokeStyle = color;
      pen.globalAlpha = 0.35 + 0.6 * Math.max(0, one.weight);
      pen.lineWidth = 0.8 + 2 * Math.max(0, one.weight);
      pen.beginPath();
      pen.moveTo(from, middle);
      const other = state.view.nodes.index.indexOf(one.index);
      const y = other < 0 ? middle : yInBand(other, own);
      pen.quadraticCurveTo((from + to) / 2, Math.min(middle, y) - 24 - Math.min(90, Math.abs(from - to) * 0.16), to, y);
      pen.stroke();
    }
    pen.globalAlpha = 1;
    pen.lineWidth = 1;
  }

  function drawTokens(pen, width, own) {
    const { passage } = state.view;
    const each = inner(width) / span();
    if (!passage || each < TOKEN_WIDTH) return;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.font = "12px 'JetBrains Mono', ui-monospace, monospace";
    const marked = new Map(state.view.nodes.position.map((position, at) => [position, at]));
    for (const token of passage.tokens) {
      const x = xOf(token.position, width);
      if (x < LEFT - each || x > width) continue;
      const at = marked.get(token.position);
      // Tokens stand in two rows by turns, so that each has twice the room.
      const y = own.density - 40 + 26 * (token.position % 2);
      const room = Math.floor((2 * each - 12) / 7.3);
      const words = token.shown.length > room ? `${token.shown.slice(0, Math.max(1, room - 1))}\u2026` : token.shown;
      if (at !== undefined) {
        const color = state.chains[state.view.nodes.chain[at] % 12];
        pen.strokeStyle = pen.fillStyle = color;
        pen.globalAlpha = 0.45;
        pen.beginPath();
        pen.moveTo(x, yInBand(at, own) + 6);
        pen.lineTo(x, y - 11);
        pen.stroke();
        const wide = Math.min(2 * each - 4, 7.3 * words.length + 12);
        pen.globalAlpha = 0.24;
        pen.beginPath();
        pen.roundRect(x - wide / 2, y - 11, wide, 22, 7);
        pen.fill();
        pen.globalAlpha = 1;
      }
      pen.fillStyle = at === undefined ? state.colors.dim : state.colors.text;
      pen.fillText(words, x, y);
    }
    pen.font = "11px Inter, system-ui, sans-serif";
  }

  function drawAxis(pen, width, own) {
    const rough = span() / Math.max(2, inner(width) / 110);
    const power = 10 ** Math.floor(Math.log10(Math.max(1, rough)));
    const step = Math.max(1, [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough) || rough);
    pen.fillStyle = state.colors.dim;
    pen.textAlign = "center";
    pen.textBaseline = "top";
    for (let at = Math.ceil(state.first / step) * step; at <= state.end; at += step) {
      const x = xOf(at, width);
      if (x < LEFT || x > width - RIGHT) continue;
      pen.fillRect(Math.round(x), own.axis - 4, 1, 4);
      pen.fillText(inspector.count(Math.round(at)), x, own.axis + 4);
    }
  }

  function drawMap() {
    const width = map.clientWidth;
    const height = map.clientHeight;
    const pen = map.getContext("2d");
    pen.clearRect(0, 0, width, height);
    if (!state.view) return;
    const { whole } = state.view;
    const top = Math.max(1, ...whole.bookmarks);
    const scale = inner(width) / state.length;
    const { colors } = state;
    pen.fillStyle = colors.dim;
    pen.globalAlpha = 0.55;
    whole.bookmarks.forEach((value, at) => {
      const tall = (value / top) * (height - 14);
      pen.fillRect(LEFT + at * whole.tokens * scale, height - 8 - tall, Math.max(1, whole.tokens * scale - 0.5), tall);
    });
    pen.fillStyle = colors.accent;
    whole.heat.forEach((value, at) => {
      if (value) pen.fillRect(LEFT + at * whole.tokens * scale, height - 6, Math.max(2, whole.tokens * scale), 4);
    });
    pen.globalAlpha = 0.14;
    pen.fillStyle = colors.cool;
    const left = LEFT + state.first * scale;
    const wide = Math.max(3, span() * scale);
    pen.fillRect(left, 0, wide, height);
    pen.globalAlpha = 1;
    pen.strokeStyle = colors.cool;
    pen.strokeRect(left + 0.5, 0.5, wide - 1, height - 1);
  }

  function tell() {
    const { view } = state;
    const first = Math.max(0, Math.floor(state.first));
    const end = Math.min(state.length, Math.ceil(state.end));
    const least = view.least_height;
    const what = least === 0 ? "every bookmark" : `checkpoints from 1 in ${view.checkpoints_every[least - 1]} on`;
    const text = `${inspector.count(first)} to ${inspector.count(Math.max(first, end - 1))} · ${what}`;
    if (told.textContent !== text) told.textContent = text;
  }

  // How coarse what is here is, against what could be: asks again once it matters.
  function want() {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const wide = span();
      const have = state.view;
      const covers = have && have.first <= state.first && have.first + have.count >= Math.min(state.length, state.end);
      if (covers && (have.count <= wide * 2.2 || (have.least_height === 0 && have.count <= 4000 && wide > 400))) return;
      const first = Math.max(0, Math.floor(state.first - wide * 0.5));
      const count = Math.max(1, Math.ceil(Math.min(state.length - first, wide * 2)));
      await load(first, count);
    }, 90);
  }

  async function load(first, count) {
    state.asked += 1;
    const mine = state.asked;
    const answer = await fetch(`${session}/timeline.json?first=${first}&count=${count}`);
    if (!answer.ok || mine !== state.asked) return;
    const view = await answer.json();
    if (view.passage) for (const token of view.passage.tokens) token.shown = token.text === null ? String(token.id) : visible(token.text);
    bands(view);
    state.view = view;
    state.length = Math.max(view.session.tokens, view.session.tail_position, 1);
    host.dataset.nodes = String(view.nodes.index.length);
    redraw();
  }

  const visible = (text) => text.replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g, "\u00b7").trim().slice(0, 24) || "\u2423";

  function look(first, end) {
    const wide = Math.min(Math.max(end - first, 12), state.length * 1.02);
    state.first = Math.min(Math.max(first, -wide * 0.02), Math.max(0, state.length - wide) + wide * 0.02);
    state.end = state.first + wide;
    redraw();
    want();
  }

  function zoom(factor, at) {
    const middle = at === undefined ? (state.first + state.end) / 2 : at;
    look(middle - (middle - state.first) * factor, middle + (state.end - middle) * factor);
  }

  function nearest(x, y) {
    if (!state.view) return null;
    const width = canvas.clientWidth;
    const own = layout(canvas.clientHeight);
    const { nodes } = state.view;
    let best = null;
    let least = 14 * 14;
    for (let at = 0; at < nodes.index.length; at += 1) {
      const across = xOf(nodes.position[at], width) - x;
      if (Math.abs(across) > 14) continue;
      for (const row of nodes.height[at] > 0 ? [yOf(at, own), yInBand(at, own)] : [yOf(at, own)]) {
        const distance = across * across + (row - y) * (row - y);
        if (distance < least) [best, least] = [nodes.index[at], distance];
      }
    }
    return best;
  }

  async function pick(index) {
    if (index === null || index < 0) return;
    state.picked = index;
    host.dataset.picked = String(index);
    inspector.openBookmark(session, index);
    redraw();
    const answer = await fetch(`${session}/bookmarks/${index}.json`);
    if (!answer.ok || state.picked !== index) return;
    state.links = await answer.json();
    const at = state.links.position;
    if (at < state.first || at > state.end) look(at - span() / 2, at + span() / 2);
    redraw();
  }

  let drag = null;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    drag = { x: event.offsetX, first: state.first, end: state.end, moved: false };
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drag) {
      const hover = nearest(event.offsetX, event.offsetY);
      canvas.classList.toggle("pointing", hover !== null);
      if (hover !== state.hover) {
        state.hover = hover;
        redraw();
      }
      return;
    }
    const by = ((event.offsetX - drag.x) / inner(canvas.clientWidth)) * (drag.end - drag.first);
    if (Math.abs(event.offsetX - drag.x) > 3) drag.moved = true;
    if (drag.moved) look(drag.first - by, drag.end - by);
  });
  canvas.addEventListener("pointerup", (event) => {
    if (drag && !drag.moved) pick(nearest(event.offsetX, event.offsetY));
    drag = null;
  });
  canvas.addEventListener("pointercancel", () => {
    drag = null;
  });
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        const by = (event.deltaX / inner(canvas.clientWidth)) * span();
        look(state.first + by, state.end + by);
      } else {
        zoom(Math.exp(event.deltaY * 0.0016), positionAt(event.offsetX, canvas.clientWidth));
      }
    },
    { passive: false },
  );
  const jump = (event) => {
    if (event.buttons !== 1) return;
    const at = ((event.offsetX - LEFT) / inner(map.clientWidth)) * state.length;
    look(at - span() / 2, at + span() / 2);
  };
  map.addEventListener("pointerdown", jump);
  map.addEventListener("pointermove", jump);

  canvas.addEventListener("keydown", (event) => {
    const move = span() * 0.15;
    const step = (by) => pick(Math.min(Math.max(0, (state.picked === null ? -1 : state.picked) + by), state.view.session.bookmarks - 1));
    const act = {
      ArrowLeft: () => look(state.first - move, state.end - move),
      ArrowRight: () => look(state.first + move, state.end + move),
      "+": () => zoom(0.7),
      "=": () => zoom(0.7),
      "-": () => zoom(1.4),
      0: () => look(0, state.length),
      Home: () => look(0, span()),
      End: () => look(state.length - span(), state.length),
      j: () => step(1),
      k: () => step(-1),
      Enter: () => {
        if (state.picked === null) return step(1);
        look(state.links.position - 12, state.links.position + 12);
      },
    }[event.key];
    if (!act || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    act();
  });
  for (const [id, act] of [["in", () => zoom(0.6)], ["out", () => zoom(1.6)], ["all", () => look(0, state.length)]])
    document.getElementById(`zoom-${id}`).addEventListener("click", act);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-bookmark]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    pick(Number(link.dataset.bookmark));
  });

  document.addEventListener("theme", theme);
  new ResizeObserver(resize).observe(canvas);
  theme();
  load(Number(host.dataset.first), Number(host.dataset.count)).then(() => {
    look(Number(host.dataset.first), Number(host.dataset.count) ? Number(host.dataset.first) + Number(host.dataset.count) : state.length);
    host.dataset.ready = "1";
  });
  window.inspector.timeline = { look, zoom, pick, state };
})();
