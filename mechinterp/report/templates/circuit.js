"use strict";
(() => {
  const STEPS = 8, WIDTHS = [0, 0.7, 1.1, 1.6, 2.2, 2.9, 3.7, 4.6, 5.6];
  const MOST_ARROWS = 400, MOST_DASHED = 600, MOST_LISTED = 60, REACH = 7;
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
    frame(layout);
    nodeElements = new Map();
    layout.places.forEach((spot, key) => {
      if (spot) nodeElements.set(key, nodeElement(spot, key));
    });
  }

  function frame(layout) {
    const { back } = layers;
    const foot = layout.height - 34;
    const end = layout.left + layout.bands.reduce((sum, band) => sum + band.width, 0);
    layout.bands.forEach((band, i) => {
      if (i % 2 === 0) shape(back, "rect", { class: "column", x: geometry.round(band.x), y: 0, width: geometry.round(band.width), height: layout.height - 14 });
      const most = Math.max(3, Math.floor(band.width / 6.6));
      const text = band.text.length > most ? `${band.text.slice(0, most - 1)}…` : band.text;
      shape(back, "text", { class: "tick", x: geometry.round(band.x + band.width / 2), y: layout.height - 20, "text-anchor": "middle" }, text);
    });
    const every = Math.ceil(20 / Math.max(1, layout.pitchY));
    for (const { layer, y } of layout.rows) {
      const last = layout.bands.length ? end : Math.max(...layout.ticks.map((tick) => tick.x)) + layout.pitch / 2;
      shape(back, "line", { class: "rule", x1: layout.left - 12, x2: last, y1: y, y2: y });
      if (layer % every === 0) shape(back, "text", { class: "tick", x: layout.left - 18, y: y + 4, "text-anchor": "end" }, String(layer));
    }
    if (layout.rows.length) {
      const ys = layout.rows.map((row) => row.y);
      const middle = (Math.min(...ys) + Math.max(...ys)) / 2;
      shape(back, "text", { class: "axis-name", transform: `translate(${layout.left - 45} ${middle}) rotate(-90)`, "text-anchor": "middle" }, "layer");
    }
    const skip = Math.ceil(16 / layout.pitch);
    layout.ticks.forEach((tick, i) => {
      if (i % skip && tick.text !== "MLP") return;
      shape(back, "text", { class: "tick", x: geometry.round(tick.x), y: foot + 14, "text-anchor": "middle" }, tick.text);
    });
    const xs = layout.ticks.length ? layout.ticks.filter((tick) => tick.text !== "MLP").map((tick) => tick.x) : [layout.left, end];
    shape(back, "text", { class: "axis-name", x: (Math.min(...xs) + Math.max(...xs)) / 2, y: layout.height - 3, "text-anchor": "middle" }, layout.axis);
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
    layers.moves.replaceChildren(...moves(layout, shown), ...brackets(layout, shown));
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

  /* A head that reads at one position and writes at another carries over what it read. */
  function moves(layout, list) {
    if (nPositions === 1) return [];
    const reads = new Map(), writes = new Map();
    const note = (map, node, pos) => map.set(node, (map.get(node) ?? new Set()).add(pos));
    for (const e of list) {
      if (graph.head[edges.w[e]] >= 0) note(writes, edges.w[e], posOf(e));
      if ("kv".includes(kindOf(e))) for (const node of fed[edges.r[e]]) note(reads, node, posOf(e));
    }
    const lines = [], heads = [];
    for (const [node, from] of reads) {
      for (const one of from) {
        for (const other of writes.get(node) ?? []) {
          if (one === other) continue;
          const a = layout.places[node * nPositions + one], b = layout.places[node * nPositions + other];
          const way = Math.sign(b.x - a.x), x0 = a.x + way * a.w / 2, x1 = b.x - way * (b.w / 2 + 1);
          const lift = Math.min(14, 4 + Math.abs(x1 - x0) / 30);
          const line = [x0, a.y, x0 + way * 24, a.y - lift, x1 - way * 24, b.y - lift, x1, b.y];
          const made = geometry.arrow(line, 0.5);
          lines.push(made.line);
          heads.push(made.head);
        }
      }
    }
    return [["move", lines], ["move-tip", heads]].map(([name, d]) => shape(null, "path", { class: name, d: d.join("") }));
  }

  function brackets(layout, list) {
    const lines = new Set();
    for (const e of list) {
      const nodes = fed[edges.r[e]];
      if (nodes.length < 2) continue;
      const spots = nodes.map((node) => layout.places[node * nPositions + posOf(e)]).filter(Boolean);
      if (spots.length < 2) continue;
      const xs = spots.map((spot) => spot.x), down = kindOf(e) === "k" ? 5 : 8;
      const foot = spots[0].y + spots[0].h / 2, from = Math.min(...xs), to = Math.max(...xs);
      lines.add(`M${from} ${foot}V${foot + down}H${to}V${foot}`);
    }
    return lines.size ? [shape(null, "path", { class: "bracket", d: [...lines].join("") })] : [];
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
    byId("p-name").textContent = nodeNames[node];
    const reads = into[node].filter((e) => isShown[e]), writes = out[node].filter((e) => isShown[e]);
    const sum = (list) => withUnit(number(list.reduce((total, e) => total + (scoreOf(e) ?? 0), 0)));
    byId("p-about").textContent = `Of the edges shown it writes ${count(writes.length)}, in sum ${sum(writes)}, and reads ${count(reads.length)}, in sum ${sum(reads)}.`;
    list(byId("p-out"), writes, (e) => graph.readers[edges.r[e]], (e) => fed[edges.r[e]][0]);
    list(byId("p-in"), reads, (e) => (kindOf(e).length === 1 ? `${nodeNames[edges.w[e]]} as ${kindOf(e)}` : nodeNames[edges.w[e]]), (e) => edges.w[e]);
    if (isNew) attention(node);
  }

  function list(holder, found, name, target) {
    holder.hidden = !found.length;
    holder.querySelector("small").textContent = `(${count(found.length)})`;
    holder.querySelector("tbody").replaceChildren(...found.slice(0, MOST_LISTED).map((e) => {
      const row = element("tr");
      row.dataset.e = e;
      const cell = element("th");
      cell.scope = "row";
      const button = element("button", "plain edge-name", name(e));
      button.type = "button";
      button.addEventListener("click", () => pin(target(e)));
      cell.append(button);
      if (edges.p) cell.append(" ", element("small", "", graph.positions[edges.p[e]]));
      row.append(cell, element("td", "r num", number(scoreOf(e))));
      return row;
    }));
    const more = found.length - MOST_LISTED;
    holder.querySelector(".more").textContent = more > 0 ? `and ${count(more)} weaker ones` : "";
  }

  function attention(node) {
    const name = nodeNames[node];
    const rows = data.patterns?.heads[name];
    byId("pattern").hidden = !rows;
    byId("no-pattern").hidden = !data.patterns || Boolean(rows) || node === LOGITS || graph.head[node] < 0;
    if (!rows) return;
    const { tokens } = data.patterns;
    const room = Math.min(430, byId("pattern").parentElement.clientWidth);
    pattern.show(byId("pattern-map"), tokens, rows, room, (pos, src, weight) => {
      byId("pattern-at").replaceChildren("from ", element("bdi", "tok", tokens[pos]), ` (${pos}) to `, element("bdi", "tok", tokens[src]), ` (${src}): `, element("b", "num", weight.toFixed(3)));
    });
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

  function radios(id, pick) {
    const buttons = [...(byId(id)?.querySelectorAll("button") ?? [])];
    const choose = (index) => {
      buttons.forEach((button, i) => {
        button.setAttribute("aria-checked", String(i === index));
        button.tabIndex = i === index ? 0 : -1;
      });
      pick(index);
    };
    buttons.forEach((button, i) => {
      button.addEventListener("click", () => choose(i));
      button.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (!step) return;
        event.preventDefault();
        const next = (i + step + buttons.length) % buttons.length;
        choose(next);
        buttons[next].focus();
      });
    });
    return choose;
  }
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
