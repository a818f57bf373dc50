// The graph of a session's bookmarks: drawn by sigma, moved into place by forces, walked by keys.
(function () {
  "use strict";
  const host = document.getElementById("graph");
  if (!host || !window.Sigma || !window.graphology) return;
  const session = host.dataset.session;
  const form = document.getElementById("graph-form");
  const told = document.getElementById("graph-told");
  const FORCES_MAX = 1600;
  const LABEL_AT = 6;
  const ROUNDS = 200;
  const SETTLE_MS = 2500;
  let renderer = null;
  let graph = null;
  let chains = [];
  let picked = null;
  let hovered = null;
  let near = new Set();
  let settling = 0;

  // Sigma's blending brightens what is see-through: colours fade into the ground instead.
  const channels = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  const mix = (color, share) => {
    const ground = channels(inspectorGround);
    const parts = channels(color).map((one, at) => Math.round(one * share + ground[at] * (1 - share)));
    return `#${parts.map((one) => one.toString(16).padStart(2, "0")).join("")}`;
  };
  let inspectorGround = "#000000";
  let inspectorEdge = "#888888";

  function fill(view) {
    graph = new graphology.Graph({ type: "directed", multi: false });
    const { nodes, edges } = view;
    const seeds = new Set(view.seeds);
    const scale = nodes.index.length > 1500 ? 0.5 : 1;
    nodes.index.forEach((index, at) => {
      const chain = nodes.chain[at];
      graph.addNode(String(index), {
        x: view.x[at],
        y: view.y[at],
        chain,
        position: nodes.position[at],
        seed: seeds.has(index),
        size: scale * Math.min(13, 2.4 + 1.15 * Math.sqrt(nodes.children[at]) + (seeds.has(index) ? 3 : 0)),
        label: `#${index} · ${inspector.count(nodes.position[at])}`,
      });
    });
    edges.source.forEach((source, at) => {
      if (!graph.hasEdge(String(source), String(edges.target[at])))
        graph.addEdge(String(source), String(edges.target[at]), { weight: Math.max(0.01, edges.weight[at]) });
    });
    // Of a chain with a name, the node that most link to bears it.
    for (const [chain, label] of Object.entries(view.label)) {
      let best = null;
      graph.forEachNode((node, own) => {
        if (String(own.chain) === chain && (best === null || own.size > graph.getNodeAttribute(best, "size"))) best = node;
      });
      if (best !== null) graph.mergeNodeAttributes(best, { topic: label.replace(/\s+/g, " ") });
    }
  }

  function paint() {
    chains = inspector.chains();
    inspectorGround = inspector.color("--panel");
    inspectorEdge = inspector.color("--edge");
    const text = inspector.color("--text");
    if (!renderer) return;
    renderer.setSetting("labelColor", { color: text });
    renderer.setSetting("defaultDrawNodeHover", hover);
    renderer.refresh();
  }

  function hover(pen, data, settings) {
    if (!data.label) return;
    pen.font = `600 ${settings.labelSize}px ${settings.labelFont}`;
    const wide = pen.measureText(data.label).width + 16;
    pen.fillStyle = inspector.color("--panel");
    pen.strokeStyle = inspector.color("--line");
    pen.beginPath();
    pen.roundRect(data.x + data.size + 3, data.y - 13, wide, 26, 8);
    pen.fill();
    pen.stroke();
    pen.fillStyle = inspector.color("--text");
    pen.textBaseline = "middle";
    pen.fillText(data.label, data.x + data.size + 11, data.y);
  }

  function start() {
    renderer = new Sigma(graph, host, {
      renderEdgeLabels: false,
      defaultEdgeType: "line",
      labelFont: "Inter, system-ui, sans-serif",
      labelSize: 12,
      labelWeight: "500",
      labelRenderedSizeThreshold: LABEL_AT,
      labelDensity: 0.35,
      labelGridCellSize: 130,
      minCameraRatio: 0.02,
      maxCameraRatio: 4,
      hideEdgesOnMove: graph.size > 1500,
      hideLabelsOnMove: true,
      zIndex: true,
      stagePadding: 40,
      nodeReducer: (node, data) => {
        const own = { ...data, color: chains[data.chain % 12], label: data.topic || data.label };
        if (data.topic) own.forceLabel = graph.order < 1500 || data.size > 5;
        else if (node !== hovered && node !== picked) own.label = graph.order < 120 ? data.label : null;
        const focus = hovered || picked;
        if (focus && !near.has(node)) {
          own.color = mix(own.color, 0.28);
          own.label = null;
          own.forceLabel = false;
          own.zIndex = 0;
        } else if (focus) {
          own.zIndex = 2;
        }
        if (node === picked || node === hovered) {
          own.size = data.size + 3;
          own.label = data.label;
          own.highlighted = node === picked;
        }
        return own;
      },
      edgeReducer: (edge, data) => {
        const focus = hovered || picked;
        const touches = focus && graph.hasExtremity(edge, focus);
        const alpha = touches ? 0.85 : focus ? 0.07 : 0.14 + 0.5 * Math.max(0, data.weight - 0.3);
        const color = touches ? chains[graph.getNodeAttribute(focus, "chain") % 12] : inspectorEdge;
        return { ...data, color: mix(color, Math.min(1, alpha)), size: (touches ? 1.2 : 0.5) + 1.6 * data.weight * data.weight };
      },
    });
    const below = renderer.getNodeAtPosition.bind(renderer);
    renderer.getNodeAtPosition = (at) => (moves() ? undefined : below(at));
    renderer.on("enterNode", ({ node }) => point(node));
    renderer.on("leaveNode", () => point(null));
    renderer.on("clickNode", ({ node }) => pick(node));
    renderer.on("doubleClickNode", (event) => {
      event.preventSigmaDefault();
      expand(event.node);
    });
    renderer.on("clickStage", () => {
      picked = null;
      point(null);
    });
  }

  // Looking up what is below the pointer makes the GPU wait: not while the graph is moved.
  let pressed = false;
  let dragged = false;
  let turnedAt = -Infinity;
  host.addEventListener("pointerdown", () => ([pressed, dragged] = [true, false]), true);
  host.addEventListener("pointermove", () => (dragged = pressed), true);
  window.addEventListener("pointerup", () => ([pressed, dragged] = [false, false]), true);
  host.addEventListener("wheel", () => (turnedAt = performance.now()), { capture: true, passive: true });
  const moves = () => dragged || performance.now() - turnedAt < 150;

  function point(node) {
    // What passes below the pointer while the graph is moved is not pointed at.
    if (pressed && node !== null) return;
    hovered = node;
    const focus = hovered || picked;
    near = focus && graph.hasNode(focus) ? new Set([focus, ...graph.neighbors(focus)]) : new Set();
    renderer.refresh({ skipIndexation: true });
  }

  function pick(node, travel) {
    if (!graph.hasNode(node)) return false;
    picked = node;
    host.dataset.picked = node;
    point(null);
    inspector.openBookmark(session, node);
    if (travel) {
      const at = renderer.getNodeDisplayData(node);
      const camera = { x: at.x, y: at.y, ratio: Math.min(0.35, renderer.getCamera().ratio) };
      if (inspector.calm()) renderer.getCamera().setState(camera);
      else renderer.getCamera().animate(camera, { duration: 350 });
    }
    return true;
  }

  // Forces move nodes for a while, a little each frame; with many nodes they stay where the server put them.
  function settle() {
    if (graph.order < 3 || graph.order > FORCES_MAX) return done();
    const settings = {
      ...graphologyLibrary.layoutForceAtlas2.inferSettings(graph),
      barnesHutOptimize: graph.order > 300,
      edgeWeightInfluence: 1,
      scalingRatio: 6,
      gravity: 0.8,
      slowDown: 3,
    };
    const mine = (settling += 1);
    const began = performance.now();
    let left = ROUNDS;
    const turn = () => {
      if (mine !== settling) return;
      graphologyLibrary.layoutForceAtlas2.assign(graph, { iterations: 4, settings });
      left -= 4;
      if (left > 0 && performance.now() - began < SETTLE_MS) requestAnimationFrame(turn);
      else done();
    };
    turn();
  }

  function done() {
    host.dataset.ready = "1";
    host.dataset.nodes = String(graph.order);
    host.dataset.edges = String(graph.size);
  }

  async function load() {
    delete host.dataset.ready;
    const asked = new URLSearchParams(new FormData(form));
    const answer = await fetch(`${session}/graph.json?${asked}`);
    if (!answer.ok) {
      told.textContent = (await answer.json()).problem;
      return;
    }
    const view = await answer.json();
    settling += 1;
    if (renderer) renderer.kill();
    renderer = null;
    picked = hovered = null;
    near = new Set();
    fill(view);
    paint();
    start();
    paint();
    settle();
    history.replaceState(null, "", `${session}/graph?${asked}`);
    told.textContent =
      `${inspector.count(graph.order)} bookmarks, ${inspector.count(graph.size)} links` +
      (view.full ? " · as many as fit: raise “nodes”, or fewer hops" : "");
    if (view.seeds.length === 1) pick(String(view.seeds[0]));
  }

  function expand(node) {
    const seeds = form.elements.seeds;
    const all = new Set([...seeds.value.split(",").filter(Boolean), node]);
    seeds.value = [...all].slice(-64).join(",");
    load();
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    load();
  });
  form.addEventListener("change", load);
  document.addEventListener("theme", paint);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-bookmark]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    if (pick(link.dataset.bookmark, true)) return;
    form.elements.seeds.value = link.dataset.bookmark;
    load();
  });

  host.addEventListener("keydown", (event) => {
    const order = graph ? graph.nodes() : [];
    const at = order.indexOf(picked);
    const camera = renderer && renderer.getCamera();
    const act = {
      ArrowRight: () => pick(order[(at + 1) % order.length], true),
      ArrowLeft: () => pick(order[(at - 1 + order.length) % order.length], true),
      ArrowUp: () => pick(graph.outNeighbors(picked)[0], true),
      ArrowDown: () => pick(graph.inNeighbors(picked)[0], true),
      "+": () => camera.animatedZoom({ duration: 120 }),
      "=": () => camera.animatedZoom({ duration: 120 }),
      "-": () => camera.animatedUnzoom({ duration: 120 }),
      0: () => camera.animatedReset({ duration: 150 }),
      e: () => picked && expand(picked),
    }[event.key];
    if (!act || !order.length || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    if (picked === null && event.key.startsWith("Arrow")) pick(order[0], true);
    else act();
  });
  for (const [id, act] of [["in", "animatedZoom"], ["out", "animatedUnzoom"], ["all", "animatedReset"]])
    document.getElementById(`zoom-${id}`).addEventListener("click", () => renderer.getCamera()[act]({ duration: 150 }));
  load();
  window.inspector.graph = { camera: () => renderer.getCamera(), pick, order: () => graph.order };
})();
