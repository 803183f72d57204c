"use strict";
/* Where nodes stand and how edges run between them: numbers alone, no document.
   A node of a graph with positions stands at each of them, where an edge does. */
const geometry = (() => {
  const LEFT = 58, RIGHT = 14, MARGIN = 46, TOP = 16, BOTTOM = 46;
  const WIDEST = 54, NARROWEST = 17, APART = 8, GAP = 34;
  const EMPTY_ROW = 10;
  const between = (low, value, high) => Math.max(low, Math.min(high, value));
  const round = (value) => Math.round(value * 10) / 10;

  /* `stands[node * n_positions + pos]`: whether an edge of what is to be seen meets a node there.
     Without positions every node has its place, so that a head is always above the same number. */
  function layOut(graph, stands, room) {
    const n = Math.max(1, graph.positions.length);
    const rows = rowsOf(graph, stands, n);
    const columns = graph.positions.length ? packed(graph, stands, n, room) : aligned(graph, room);
    const places = new Array((graph.writers.length + 1) * n).fill(null);
    const height = Math.min(20, rows.pitch - 12);
    for (let node = 0; node <= graph.writers.length; node++) {
      for (let pos = 0; pos < n; pos++) {
        const key = node * n + pos;
        const spot = columns.spot(node, pos);
        if (!spot) continue;
        const isMlp = graph.layer[node] >= 0 && graph.head[node] < 0;
        const raised = isMlp && !graph.is_parallel ? 0.45 * rows.pitch : 0;
        places[key] = { node, pos, x: round(spot.x), y: round(rows.y(node) - raised), w: spot.w, h: height, span: spot.span, isLast: spot.isLast, layer: graph.layer[node] };
      }
    }
    return { ...columns, places, rows: rows.labels, height: rows.height, pitchY: rows.pitch, n };
  }

  /* Layers from the bottom up; one where nothing stands is a thin row. */
  function rowsOf(graph, stands, n) {
    const filled = new Array(graph.n_layers).fill(false);
    graph.layer.forEach((layer, node) => {
      for (let pos = 0; pos < n; pos++) if (layer >= 0 && stands[node * n + pos]) filled[layer] = true;
    });
    const nFilled = filled.filter(Boolean).length;
    const pitch = between(30, 760 / Math.max(1, nFilled + 1), 74);
    const half = (layer) => (filled[layer] ?? true ? pitch : EMPTY_ROW) / 2;
    const top = TOP + 12;
    const labels = [];
    const ys = [];
    let y = graph.is_parallel ? top : top + 0.2 * pitch;
    for (let layer = graph.n_layers - 1; layer >= -1; layer--) {
      y += half(layer + 1) + half(layer);
      if (layer < 0) break;
      ys[layer] = y;
      if (filled[layer]) labels.push({ layer, y: round(y) });
    }
    return {
      pitch, labels,
      height: Math.ceil(y + BOTTOM),
      y: (node) => node === graph.writers.length ? top : graph.layer[node] < 0 ? y : ys[graph.layer[node]],
    };
  }

  /* A column for each head number, the MLP to the right. */
  function aligned(graph, room) {
    const slots = graph.n_heads + (graph.has_mlps ? 1.2 : 0);
    const right = graph.has_mlps ? MARGIN : RIGHT;
    const pitch = between(NARROWEST, (room - LEFT - right) / slots, 150);
    const width = Math.max(room, Math.ceil(LEFT + right + slots * pitch));
    const left = LEFT + (width - LEFT - right - slots * pitch) / 2;
    const wide = Math.min(WIDEST, pitch - Math.min(APART, pitch / 7));
    const middle = left + slots * pitch / 2;
    const end = { x: middle, w: between(90, 0.34 * slots * pitch, 300), span: slots * pitch / 2 };
    const heads = Array.from({ length: graph.n_heads }, (_, head) => left + pitch * (head + 0.5));
    const mlp = left + pitch * (graph.n_heads + 0.7);
    const ticks = heads.map((x, head) => ({ x, text: String(head) }));
    if (graph.has_mlps) ticks.push({ x: mlp, text: "MLP" });
    return {
      width, pitch, ticks, bands: [], left, margin: MARGIN, axis: "head",
      spot(node) {
        if (node === graph.writers.length || graph.layer[node] < 0) return end;
        return graph.head[node] < 0 ? { x: mlp, w: wide, isLast: true } : { x: heads[graph.head[node]], w: wide };
      },
    };
  }

  /* A column for each position, in it the nodes that stand there, side by side. */
  function packed(graph, stands, n, room) {
    const spots = new Map();
    const columns = Array.from({ length: n }, (_, pos) => {
      const layers = Array.from({ length: graph.n_layers }, () => []);
      let mlps = 0;
      graph.layer.forEach((layer, node) => {
        if (layer < 0 || !stands[node * n + pos]) return;
        if (graph.head[node] < 0) mlps = 1;
        else layers[layer].push(node);
      });
      const heads = Math.max(0, ...layers.map((nodes) => nodes.length));
      return { layers, heads, mlps, slots: Math.max(1.6, heads + mlps) };
    });
    const all = columns.reduce((sum, column) => sum + column.slots, 0);
    const pitch = between(24, (room - LEFT - RIGHT - n * GAP) / all, 84);
    const width = Math.max(room, Math.ceil(LEFT + RIGHT + n * GAP + all * pitch));
    const bands = [];
    let x = LEFT + (width - LEFT - RIGHT - n * GAP - all * pitch) / 2;
    const left = x;
    const wide = Math.min(WIDEST, pitch - Math.min(APART, pitch / 7));
    columns.forEach(({ layers, heads, mlps, slots }, pos) => {
      const size = slots * pitch + GAP;
      const middle = x + size / 2;
      const first = middle - ((heads + mlps) * pitch) / 2;
      bands.push({ x, width: size, text: graph.positions[pos] });
      layers.forEach((nodes) => nodes.forEach((node, i) => {
        spots.set(node * n + pos, { x: first + (heads / 2 + i - (nodes.length - 1) / 2) * pitch, w: wide });
      }));
      graph.layer.forEach((layer, node) => {
        const isMlp = layer >= 0 && graph.head[node] < 0;
        if (isMlp && stands[node * n + pos]) spots.set(node * n + pos, { x: first + (heads + 0.5) * pitch, w: wide, isLast: true });
      });
      const end = { x: middle, w: Math.min(size - 12, 92), span: size / 2 };
      for (const node of [0, graph.writers.length]) if (stands[node * n + pos]) spots.set(node * n + pos, end);
      x += size;
    });
    return { width, pitch, ticks: [], bands, left, margin: GAP - 8, axis: "position", spot: (node, pos) => spots.get(node * n + pos) };
  }

  const PORTS = { q: -0.3, k: 0, v: 0.3 };

  /* The curve of an edge: ends and control points, from the top of the writer to the foot of what
     reads. Several heads that share an input have one place between them, on a bracket below. */
  function curve(layout, from, targets, kind, side) {
    const start = layout.places[from];
    const ends = targets.map((key) => layout.places[key]).filter(Boolean);
    if (!start || !ends.length) return null;
    const to = ends[0];
    let x1 = to.x + (PORTS[kind] ?? 0) * to.w;
    let y1 = to.y + to.h / 2 + 1;
    if (ends.length > 1) {
      const xs = ends.map((end) => end.x);
      x1 = (Math.min(...xs) + Math.max(...xs)) / 2 + (kind === "k" ? -4 : 4);
      y1 += kind === "k" ? 4 : 7;
    }
    if (to.isLast && start.layer === to.layer) return beside(start, to);
    const x0 = start.span ? spread(start, x1) : start.x + (0.34 * start.w * (x1 - start.x)) / (Math.abs(x1 - start.x) + layout.pitch);
    if (to.span) x1 = spread(to, x0);
    const y0 = start.y - start.h / 2;
    const rise = Math.max(y0 - y1, 1);
    const pull = Math.max(9, Math.min(0.42 * rise, 1.1 * layout.pitchY + 0.13 * rise));
    const lean = 0.16 * (x1 - x0);
    const bow = rise > 1.3 * layout.pitchY ? bowOf(layout, start, x0, x1, rise, side) : 0;
    return [x0, y0, x0 + bow + lean, y0 - pull, x1 + bow, y1 + pull, x1, y1];
  }

  /* From a head into the MLP of its layer, which stands a little higher: at its side. */
  function beside(start, to) {
    const x1 = to.x - to.w / 2 - 1, y0 = start.y - start.h / 2;
    return [start.x, y0, start.x, to.y - 2, x1 - 0.5 * (x1 - start.x), to.y, x1, to.y];
  }

  /* Over the width of a wide node, as far along as the other end is. */
  function spread(end, x) {
    const reach = end.w / 2 - 8;
    return between(end.x - reach, end.x + ((x - end.x) * reach) / end.span, end.x + reach);
  }

  /* How far a steep edge swings aside, round the nodes between its ends: further if it is longer. */
  function bowOf(layout, start, x0, x1, rise, side) {
    const steep = Math.max(0, 1 - Math.abs(x1 - x0) / layout.pitch);
    if (start.isLast) return steep * (start.w * 0.72 + (0.9 * layout.margin * rise) / layout.height);
    return side * steep * Math.min(0.66 * layout.pitch, 0.25 * rise);
  }

  function path([x0, y0, x1, y1, x2, y2, x3, y3]) {
    return `M${round(x0)} ${round(y0)}C${round(x1)} ${round(y1)} ${round(x2)} ${round(y2)} ${round(x3)} ${round(y3)}`;
  }

  /* The same curve, cut short, and the arrow head that ends it. */
  function arrow(points, width) {
    const [, , , , x2, y2, x3, y3] = points;
    const away = Math.hypot(x3 - x2, y3 - y2) || 1;
    const dx = (x3 - x2) / away, dy = (y3 - y2) / away;
    const far = Math.hypot(x3 - points[0], y3 - points[1]);
    const long = Math.min(5 + 1.1 * width, 0.7 * far), half = 2.4 + 0.75 * width;
    const bx = x3 - dx * long, by = y3 - dy * long;
    const line = points.slice();
    line[6] = x3 - dx * long * 0.7;
    line[7] = y3 - dy * long * 0.7;
    const head = `M${round(x3)} ${round(y3)}L${round(bx - dy * half)} ${round(by + dx * half)}L${round(bx + dy * half)} ${round(by - dx * half)}Z`;
    return { line: path(line), head };
  }

  /* The nearest of many curves: each as short pieces, in a grid of squares. */
  function finder(curves, ids, width, height) {
    const SIZE = 24, STEP = 14;
    const nx = Math.ceil(width / SIZE) + 1, ny = Math.ceil(height / SIZE) + 1;
    const first = new Int32Array(nx * ny).fill(-1);
    let room = 4096, n = 0;
    let next = new Int32Array(room), owner = new Int32Array(room), ends = new Float32Array(4 * room);
    const grown = (old) => { const made = new old.constructor(2 * old.length); made.set(old); return made; };

    function put(x, y, id, piece) {
      const cell = between(0, Math.floor(y / SIZE), ny - 1) * nx + between(0, Math.floor(x / SIZE), nx - 1);
      if (n === room) {
        room *= 2;
        [next, owner, ends] = [grown(next), grown(owner), grown(ends)];
      }
      next[n] = first[cell];
      first[cell] = n;
      owner[n] = id;
      ends.set(piece, 4 * n++);
    }

    for (const id of ids) {
      const c = curves[id];
      if (!c) continue;
      const steps = Math.ceil((Math.abs(c[6] - c[0]) + Math.abs(c[7] - c[1])) / STEP) + 1;
      let px = c[0], py = c[1];
      for (let i = 1; i <= steps; i++) {
        const t = i / steps, u = 1 - t;
        const a = u * u * u, b = 3 * u * u * t, d = 3 * u * t * t, e = t * t * t;
        const x = a * c[0] + b * c[2] + d * c[4] + e * c[6];
        const y = a * c[1] + b * c[3] + d * c[5] + e * c[7];
        put((px + x) / 2, (py + y) / 2, id, [px, py, x, y]);
        px = x;
        py = y;
      }
    }

    function gap(k, x, y) {
      const ax = ends[4 * k], ay = ends[4 * k + 1];
      const dx = ends[4 * k + 2] - ax, dy = ends[4 * k + 3] - ay;
      const t = between(0, ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy || 1), 1);
      return Math.hypot(x - ax - t * dx, y - ay - t * dy);
    }

    /* Of curves about as near, the one with the lowest number: the strongest. */
    return (x, y, reach) => {
      let best = -1, nearest = reach;
      const cx = Math.floor(x / SIZE), cy = Math.floor(y / SIZE);
      for (let j = Math.max(0, cy - 1); j <= Math.min(ny - 1, cy + 1); j++) {
        for (let i = Math.max(0, cx - 1); i <= Math.min(nx - 1, cx + 1); i++) {
          for (let k = first[j * nx + i]; k >= 0; k = next[k]) {
            const away = gap(k, x, y);
            if (away > nearest + 0.75 || away > reach) continue;
            if (away < nearest - 0.75 || best < 0 || owner[k] < best) best = owner[k];
            nearest = Math.min(nearest, away);
          }
        }
      }
      return best;
    };
  }

  return { layOut, curve, path, arrow, finder, round };
})();
