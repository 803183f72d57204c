"use strict";
(() => {
  const STEPS = 8, WIDTHS = [0, 0.7, 1.1, 1.6, 2.2, 2.9, 3.7, 4.6, 5.6];
  const MOST_ARROWS = 400, MOST_DASHED = 600, REACH = 7;
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("payload").textContent);
  const { graph, edges } = data;
  document.documentElement.classList.add("js");
  const n = edges.w.length;
  if (!n) return;

  const { element, shape } = make;
  const words = wordsOf(data);
  const { nodeNames, scoreOf, sideOf, number, rough, withUnit, count, edgeName, place, rankOf, hasInterval, interval, heldText } = words;
  const nPositions = Math.max(1, graph.positions.length);
  const LOGITS = graph.writers.length;
  const fed = graph.feeds.map((nodes) => (nodes.length ? nodes : [LOGITS]));
  const posOf = (e) => (edges.p ? edges.p[e] : 0);
  const stepOf = (e) => (scoreOf(e) === null || !data.largest ? 2 : Math.max(1, Math.min(STEPS, Math.ceil(STEPS * Math.sqrt(Math.abs(scoreOf(e)) / data.largest)))));
  const kindOf = (e) => graph.kind[edges.r[e]];
  const parts = { graph, edges, fed, nPositions, posOf, kindOf };
  const out = nodeNames.map(() => []);
  const into = nodeNames.map(() => []);
  for (let e = 0; e < n; e++) {
    out[edges.w[e]].push(e);
    for (const node of fed[edges.r[e]]) into[node].push(e);
  }
  const all = Array.from({ length: n }, (_, e) => e);
  const held = all.filter((e) => edges.held[e]);
  const views = [held, all].map((set) => ({ set, count: set.length, stands: standsOf(set), layout: null, curves: [] }));
  views[1].count = Math.min(n, Math.max(held.length, 200));
  views[1].isTight = nPositions > 1;
  if (views[1].isTight) views[1].stands = standsOf(all.slice(0, views[1].count));

  const stage = byId("stage"), svg = byId("drawing"), tip = byId("tip"), slider = byId("strength");
  const layers = {};
  const state = { view: held.length ? 0 : 1, byCircuit: Boolean(data.names), pinned: null, hovered: null };
  let isShown = new Uint8Array(n);
  let shown = [];
  let find = null;
  let nodeElements = new Map();
  const view = () => views[state.view];
  const fillPanel = pinnedPanel(data, words, { fed, kindOf, out, into, pin });

  function standsOf(set) {
    const stands = new Uint8Array((LOGITS + 1) * nPositions);
    for (const e of set) {
      stands[edges.w[e] * nPositions + posOf(e)] = 1;
      for (const node of fed[edges.r[e]]) stands[node * nPositions + posOf(e)] = 1;
    }
    return stands;
  }

  /* The places of the view, and the curves of its edges as they are needed. */
  function lay() {
    const now = view();
    const room = Math.floor(byId("frame").clientWidth);
    if (now.room === room) return now;
    now.room = room;
    now.layout = geometry.layOut(graph, now.stands, room);
    now.curves = new Array(n);
    return now;
  }
  function curveOf(e) {
    const now = view();
    if (now.curves[e] === undefined) {
      const at = (node) => node * nPositions + posOf(e);
      const side = (edges.w[e] + edges.r[e]) % 2 ? 1 : -1;
      now.curves[e] = geometry.curve(now.layout, at(edges.w[e]), fed[edges.r[e]].map(at), kindOf(e), side);
    }
    return now.curves[e];
  }

  /* Among all scored edges of a graph with positions only what is shown takes room. */
  function resettle(stands) {
    Object.assign(view(), { stands, room: null });
    build();
  }

  /* The still parts: axes, columns, nodes. */
  function build() {
    const { layout } = lay();
    svg.replaceChildren();
    svg.setAttribute("width", layout.width);
    svg.setAttribute("height", layout.height);
    svg.setAttribute("viewBox", `0 0 ${layout.width} ${layout.height}`);
    for (const name of ["back", "moves", "edges", "lit", "nodes"]) layers[name] = shape(svg, "g", { class: name });
    drawAxes(layers.back, layout);
    nodeElements = new Map();
    layout.places.forEach((spot, key) => {
      if (spot) nodeElements.set(key, nodeElement(spot, key));
    });
  }

  /* The whole name where all such names fit, else the number of the head: the row says the layer. */
  const fits = (text, spot) => text.length * 6.2 + 3 <= spot.w;
  function labelOf(spot) {
    const name = nodeNames[spot.node], last = graph.n_layers - 1;
    if (spot.node === LOGITS || graph.layer[spot.node] < 0) return fits(name, spot) ? name : "";
    const head = graph.head[spot.node];
    if (head < 0) return fits(`m${last}`, spot) ? name : fits("m", spot) ? "m" : "";
    return fits(`a${last}.h${graph.n_heads - 1}`, spot) ? name : fits(String(head), spot) ? String(head) : "";
  }

  function nodeElement(spot, key) {
    const isMlp = spot.node !== LOGITS && graph.layer[spot.node] >= 0 && graph.head[spot.node] < 0;
    const made = shape(layers.nodes, "g", { class: "node off", "data-key": key, transform: `translate(${spot.x} ${spot.y})`, role: "button", tabindex: -1 });
    shape(made, "circle", { class: "trace", r: 1.8 });
    shape(made, "rect", { class: "box", x: -spot.w / 2, y: -spot.h / 2, width: spot.w, height: spot.h, rx: isMlp ? 2 : spot.h / 2 });
    shape(made, "text", { class: "label", y: 3.6, "text-anchor": "middle" }, labelOf(spot));
    return made;
  }

  /* The edges that are strong enough, as few paths: one for each look. */
  function draw() {
    const began = performance.now();
    const now = view();
    shown = now.set.slice(0, now.count);
    isShown = new Uint8Array(n);
    for (const e of shown) isShown[e] = 1;
    find = null;
    const on = standsOf(shown);
    if (now.isTight && on.some((is, key) => is && !now.stands[key])) resettle(on);
    const { layout } = lay();
    layers.edges.replaceChildren(...paths(shown, shown.length <= MOST_ARROWS, shown.length <= MOST_DASHED));
    layers.moves.replaceChildren(...moves(layout, shown, parts), ...brackets(layout, shown, parts));
    let stop = null;
    for (const [key, made] of nodeElements) {
      const is = Boolean(on[key]);
      if (made.classList.contains("off") === is) made.classList.toggle("off", !is);
      if (is && (stop === null || key === state.stop)) stop = key;
    }
    tabStop(stop);
    byId("shown").textContent = shownText();
    svg.classList.toggle("has-both", state.view === 1);
    refresh();
    performance.measure("redraw", { start: began, end: performance.now() });
  }

  function shownText() {
    const { set } = view();
    const last = shown.length ? scoreOf(shown[shown.length - 1]) : null;
    const least = last === null ? "" : ` · |score| ≥ ${withUnit(rough(last))}`;
    return `${count(shown.length)} of ${count(set.length)}${least}`;
  }

  function colourOf(e) {
    if (state.byCircuit) return ["neither", "one", "two", "both"][edges.held[e]];
    return sideOf(e);
  }

  function paths(list, withArrows, dashed) {
    const groups = new Map();
    for (let i = list.length - 1; i >= 0; i--) {
      const e = list[i];
      const points = curveOf(e);
      if (!points) continue;
      const step = stepOf(e), kind = kindOf(e);
      const dash = dashed && (kind === "q" || kind === "k") ? kind : "";
      const look = `${colourOf(e)} s${step} ${dash} ${edges.held[e] ? "" : "pale"}`;
      let group = groups.get(look);
      if (!group) groups.set(look, (group = { step, pale: !edges.held[e], lines: [], heads: [] }));
      if (withArrows) {
        const { line, head } = geometry.arrow(points, WIDTHS[step]);
        group.lines.push(line);
        group.heads.push(head);
      } else group.lines.push(geometry.path(points));
    }
    const order = [...groups].sort(([, a], [, b]) => b.pale - a.pale || a.step - b.step);
    return order.flatMap(([look, { lines, heads }]) => {
      const made = [shape(null, "path", { class: `edge ${look}`, d: lines.join("") })];
      if (heads.length) made.push(shape(null, "path", { class: `tip-of ${look}`, d: heads.join("") }));
      return made;
    });
  }

  /* What is pointed at, or else pinned, stands out. */
  function refresh() {
    const active = state.hovered ?? (state.pinned === null ? null : { node: state.pinned });
    const list = active === null ? [] : active.edge !== undefined ? [active.edge] : edgesOf(active.node);
    layers.lit.replaceChildren(...paths(list, list.length <= MOST_ARROWS, true));
    svg.classList.toggle("has-lit", active !== null);
    const lit = standsOf(list);
    if (active?.node !== undefined) for (let pos = 0; pos < nPositions; pos++) lit[active.node * nPositions + pos] = 1;
    for (const [key, made] of nodeElements) {
      made.classList.toggle("lit", Boolean(lit[key]) && active !== null);
      const is = Math.floor(key / nPositions) === state.pinned;
      made.classList.toggle("pinned", is);
      made.setAttribute("aria-pressed", String(is));
    }
    side();
  }
  const edgesOf = (node) => [...out[node], ...into[node]].filter((e) => isShown[e]).sort((a, b) => a - b);

  function hover(what) {
    const same = (a, b) => a === b || (a && b && a.node === b.node && a.edge === b.edge);
    if (same(state.hovered, what)) return;
    state.hovered = what;
    refresh();
  }

  function pin(node) {
    state.pinned = node;
    state.sideOf = null;
    refresh();
  }

  /* The side table of the node that is pinned. */
  function side() {
    const node = state.pinned;
    byId("pinned").hidden = node === null;
    byId("hint").hidden = node !== null;
    const key = node === null ? null : `${node} ${state.view} ${shown.length} ${state.byCircuit}`;
    if (node === null || state.sideOf === key) return;
    const isNew = state.sideNode !== node || state.sideOf === null;
    state.sideOf = key;
    state.sideNode = node;
    fillPanel(node, isShown, isNew);
  }

  /* The words beside the pointer. */
  function tell(what, x, y) {
    tip.hidden = !what;
    if (!what) return;
    const lines = [];
    if (what.edge !== undefined) {
      const e = what.edge;
      lines.push(element("b", "edge-name", edgeName(e)));
      if (place(e)) lines.push(element("span", "", place(e)));
      lines.push(element("span", "num", withUnit(number(scoreOf(e)))));
      if (hasInterval(e)) lines.push(element("span", "num quiet", interval(e)));
      lines.push(element("span", "quiet", `${scoreOf(e) === null ? "no score" : `rank ${count(rankOf(e))}`}, ${heldText(e)}`));
    } else {
      lines.push(element("b", "edge-name", nodeNames[what.node]));
      if (nPositions > 1 && what.pos !== undefined) lines.push(element("span", "", `at ${graph.positions[what.pos]}`));
      const ends = [out, into].map((side) => side[what.node].filter((e) => isShown[e]));
      lines.push(element("span", "quiet", `writes ${count(ends[0].length)}, reads ${count(ends[1].length)} of the edges shown`));
      const total = ends[0].reduce((sum, e) => sum + (scoreOf(e) ?? 0), 0);
      if (ends[0].length) lines.push(element("span", "num", `out, in sum ${withUnit(number(total))}`));
    }
    tip.replaceChildren(...lines);
    const box = stage.getBoundingClientRect();
    const left = x - box.left + 14 + tip.offsetWidth > box.width ? x - box.left - 14 - tip.offsetWidth : x - box.left + 14;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${Math.max(4, y - box.top - tip.offsetHeight - 10)}px`;
  }

  function under(event) {
    const made = event.target.closest?.(".node:not(.off)");
    if (made) return { node: Math.floor(made.dataset.key / nPositions), pos: made.dataset.key % nPositions };
    const box = svg.getBoundingClientRect();
    const { layout } = view();
    find ??= geometry.finder(view().curves, shown, layout.width, layout.height);
    const e = find(event.clientX - box.left, event.clientY - box.top, REACH);
    return e < 0 ? null : { edge: e };
  }

  svg.addEventListener("pointermove", (event) => {
    const what = under(event);
    hover(what);
    tell(what, event.clientX, event.clientY);
  });
  svg.addEventListener("pointerleave", () => {
    hover(null);
    tell(null);
  });
  svg.addEventListener("click", (event) => {
    const what = under(event);
    if (what?.node !== undefined) {
      tabStop(+event.target.closest(".node").dataset.key);
      pin(state.pinned === what.node ? null : what.node);
    } else if (!what) pin(null);
  });

  /* Keys: one node is in the tab order, arrow keys go to the nearest in their direction. */
  function tabStop(key) {
    nodeElements.get(state.stop)?.setAttribute("tabindex", -1);
    state.stop = key;
    nodeElements.get(key)?.setAttribute("tabindex", 0);
  }
  function nearest(key, dx, dy) {
    const { places } = view().layout;
    const from = places[key];
    let best = null, least = Infinity;
    for (const [other, made] of nodeElements) {
      if (other === key || made.classList.contains("off")) continue;
      const x = places[other].x - from.x, y = places[other].y - from.y;
      const along = x * dx + y * dy, across = Math.abs(x * dy) + Math.abs(y * dx);
      if (along < 3) continue;
      const cost = along + 3 * across;
      if (cost < least) [best, least] = [other, cost];
    }
    return best;
  }
  svg.addEventListener("focusin", (event) => {
    const made = event.target.closest(".node");
    if (!made) return;
    const key = +made.dataset.key;
    hover({ node: Math.floor(key / nPositions), pos: key % nPositions });
    const box = made.getBoundingClientRect();
    if (made.matches(":focus-visible")) tell(state.hovered, box.right - 8, box.top);
  });
  svg.addEventListener("focusout", () => {
    hover(null);
    tell(null);
  });
  svg.addEventListener("keydown", (event) => {
    const made = event.target.closest(".node");
    if (!made) return;
    const key = +made.dataset.key;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      const node = Math.floor(key / nPositions);
      pin(state.pinned === node ? null : node);
      return;
    }
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!way) return;
    event.preventDefault();
    const next = nearest(key, ...way);
    if (next === null) return;
    tabStop(next);
    nodeElements.get(next).focus();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    tell(null);
    pin(null);
  });
  byId("unpin").addEventListener("click", () => pin(null));

  /* The slider goes by rank, in equal steps of its logarithm. */
  const total = () => view().set.length;
  const countAt = (value) => Math.max(1, Math.round(total() ** (value / 1000)));
  const valueAt = (many) => (total() > 1 ? Math.round((1000 * Math.log(Math.max(1, many))) / Math.log(total())) : 1000);
  let waiting = false;
  function later() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  }
  slider.addEventListener("input", () => {
    view().count = countAt(+slider.value);
    later();
  });
  slider.addEventListener("change", () => {
    if (!view().isTight) return;
    resettle(standsOf(view().set.slice(0, view().count)));
    draw();
  });

  const chooseView = radios("views", (index) => {
    state.view = index;
    state.hovered = null;
    byId("drawing").closest(".drawn").classList.toggle("all-edges", index === 1);
    slider.value = valueAt(view().count);
    slider.disabled = total() < 2;
    build();
    draw();
  });
  radios("colours", (index) => {
    state.byCircuit = index === 0;
    byId("by-score").hidden = state.byCircuit;
    byId("by-circuit").hidden = !state.byCircuit;
    draw();
  });

  const table = byId("strongest")?.tBodies[0];
  if (table) ranking(table, data, words);
  for (const holder of [table, byId("pinned")].filter(Boolean)) {
    for (const kind of ["pointerover", "focusin"]) {
      holder.addEventListener(kind, (event) => {
        const row = event.target.closest("tr[data-e]");
        hover(row ? { edge: +row.dataset.e } : null);
      });
    }
    for (const kind of ["pointerleave", "focusout"]) holder.addEventListener(kind, () => hover(null));
  }

  byId("save").addEventListener("click", () => saveDrawing(svg, "circuit.svg"));

  new ResizeObserver(() => {
    if (view().room === Math.floor(byId("frame").clientWidth)) return;
    build();
    draw();
  }).observe(byId("frame"));
  chooseView(state.view);
})();
