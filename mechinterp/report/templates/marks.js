"use strict";
/* What stands behind the nodes: bands of positions, rules and names of the axes. */
function drawAxes(back, layout) {
  const { shape } = make;
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

/* A head that reads at one position and writes at another carries over what it read. */
function moves(layout, list, { graph, edges, fed, nPositions, posOf, kindOf }) {
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
  return [["move", lines], ["move-tip", heads]].map(([name, d]) => make.shape(null, "path", { class: name, d: d.join("") }));
}

/* Heads that share a key or value input are joined below. */
function brackets(layout, list, { edges, fed, nPositions, posOf, kindOf }) {
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
  return lines.size ? [make.shape(null, "path", { class: "bracket", d: [...lines].join("") })] : [];
}
