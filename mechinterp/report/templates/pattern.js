"use strict";
/* The attention pattern of a head as a small map: a row for each query, a column for each key. */
const pattern = (() => {
  const NS = "http://www.w3.org/2000/svg";
  const LETTER = 6.1;

  function add(parent, name, attributes, text) {
    const made = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  }

  const cut = (text, most) => ([...text].length > most ? [...text].slice(0, most - 1).join("") + "…" : text);

  /* `tell(pos, src, weight)` is called with what the pointer or the arrow keys are at: at first with
     `marked`, a link, or the strongest one of the last query. `largest`: the side of a cell. */
  function show(holder, tokens, rows, room, tell, marked, largest = 20) {
    const n = tokens.length;
    const longest = Math.min(10, Math.max(...tokens.map((token) => [...token].length)));
    const named = (room - LETTER * longest - 24) / n >= 8;
    const label = named ? LETTER * longest + 8 : 6;
    const size = Math.max(1.5, Math.min(largest, (room - label - 16) / n));
    const left = label + 14, side = size * n;
    const svg = document.createElementNS(NS, "svg");
    const width = left + side + 2, height = side + label + 16;
    for (const [key, value] of Object.entries({ viewBox: `0 0 ${width} ${height}`, width, height, class: "pattern-svg" })) svg.setAttribute(key, value);
    add(svg, "rect", { class: "ground", x: left, y: 0, width: side, height: side });
    rows.forEach((row, pos) => row.forEach((weight, src) => {
      if (weight >= 4) add(svg, "rect", { class: "weight", x: left + src * size, y: pos * size, width: size, height: size, "fill-opacity": weight / 1000 });
    }));
    if (named) {
      const font = Math.min(10, size * 0.98);
      tokens.forEach((token, i) => {
        const middle = (i + 0.5) * size + 0.33 * font;
        add(svg, "text", { x: left - 5, y: middle, "text-anchor": "end", "font-size": font }, cut(token, longest));
        add(svg, "text", { transform: `translate(${left + middle} ${side + 6}) rotate(-90)`, "text-anchor": "end", "font-size": font }, cut(token, longest));
      });
    }
    add(svg, "text", { class: "axis-name", transform: `translate(10 ${side / 2}) rotate(-90)`, "text-anchor": "middle" }, "query");
    add(svg, "text", { class: "axis-name", x: left + side / 2, y: height - 3, "text-anchor": "middle" }, "key");
    const mark = add(svg, "rect", { class: "at", width: size, height: size, visibility: "hidden" });
    holder.replaceChildren(svg);
    let at = null;

    function go(pos, src) {
      at = [Math.max(0, Math.min(n - 1, pos)), Math.max(0, Math.min(n - 1, src))];
      mark.setAttribute("x", left + at[1] * size);
      mark.setAttribute("y", at[0] * size);
      mark.setAttribute("visibility", "visible");
      tell(...at, (rows[at[0]][at[1]] ?? 0) / 1000);
    }

    holder.onpointermove = (event) => {
      const box = svg.getBoundingClientRect();
      const scale = width / box.width;
      const src = Math.floor(((event.clientX - box.left) * scale - left) / size);
      const pos = Math.floor(((event.clientY - box.top) * scale) / size);
      if (src >= 0 && pos >= 0 && src < n && pos < n) go(pos, src);
    };
    holder.onkeydown = (event) => {
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!step) return;
      event.preventDefault();
      if (at) go(at[0] + step[0], at[1] + step[1]);
      else go(n - 1, 0);
    };
    if (marked) {
      go(...marked);
      return;
    }
    const strongest = rows[n - 1].indexOf(Math.max(...rows[n - 1]));
    tell(n - 1, Math.max(0, strongest), (rows[n - 1][strongest] ?? 0) / 1000);
  }

  return { show };
})();
