"use strict";
/* The panel of the node that is pinned: the edges that it writes and reads, a head's attention. */
function pinnedPanel(data, words, { fed, kindOf, out, into, pin }) {
  const MOST_LISTED = 60;
  const { graph, edges } = data;
  const { element } = make;
  const { nodeNames, scoreOf, number, withUnit, count } = words;
  const byId = (id) => document.getElementById(id);

  /* `isNew`: another node than before, so that its attention is drawn anew. */
  function fill(node, isShown, isNew) {
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
    byId("no-pattern").hidden = !data.patterns || Boolean(rows) || node === graph.writers.length || graph.head[node] < 0;
    if (!rows) return;
    const { tokens } = data.patterns;
    const room = Math.min(430, byId("pattern").parentElement.clientWidth);
    pattern.show(byId("pattern-map"), tokens, rows, room, (pos, src, weight) => {
      byId("pattern-at").replaceChildren("from ", element("bdi", "tok", tokens[pos]), ` (${pos}) to `, element("bdi", "tok", tokens[src]), ` (${src}): `, element("b", "num", weight.toFixed(3)));
    });
  }

  return fill;
}
