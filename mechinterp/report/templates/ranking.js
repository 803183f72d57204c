"use strict";
/* The table of the strongest edges: of all, or of those that the words in the filter name. */
function ranking(table, data, words) {
  const { graph, edges } = data;
  const { nodeNames, scoreOf, sideOf, number, count, place, rankOf, hasInterval, interval, heldBy } = words;
  const byId = (id) => document.getElementById(id);

  function matches(e, wanted) {
    const text = `${nodeNames[edges.w[e]]} ${graph.readers[edges.r[e]]} ${edges.p ? graph.positions[edges.p[e]] : ""}`.toLowerCase();
    return wanted.every((word) => {
      for (let at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + 1)) {
        const next = text[at + word.length] ?? "";
        if (!(/\d$/.test(word) && /\d/.test(next)) && !/[a-z0-9]/.test(text[at - 1] ?? "")) return true;
      }
      return false;
    });
  }
  function filtered() {
    const wanted = byId("filter").value.toLowerCase().split(/[\s→>@-]+/).filter(Boolean);
    const found = edges.s.map((_, e) => e).filter((e) => scoreOf(e) !== null && matches(e, wanted));
    const template = filtered.row ??= table.rows[0].cloneNode(true);
    table.replaceChildren(...found.slice(0, data.n_strongest).map((e) => strongRow(template.cloneNode(true), e)));
    if (table.rows[0]) table.rows[0].tabIndex = 0;
    byId("n-listed").textContent = count(Math.min(found.length, data.n_strongest));
    byId("n-matching").textContent = wanted.length ? `${count(found.length)} matching` : filtered.all;
  }
  function strongRow(row, e) {
    row.dataset.e = e;
    row.tabIndex = -1;
    row.querySelector(".rank").textContent = rankOf(e);
    const name = row.querySelector(".edge-name");
    name.replaceChildren(`${nodeNames[edges.w[e]]} `, make.element("span", "arrow", "→"), ` ${graph.readers[edges.r[e]]}`);
    if (edges.p) name.append(" ", make.element("small", "", place(e)));
    row.querySelector(".score").textContent = number(scoreOf(e));
    if (row.querySelector(".interval")) row.querySelector(".interval").textContent = interval(e);
    row.querySelector(".held").textContent = heldBy(e);
    bar(row.querySelector(".bar"), e);
    return row;
  }
  function bar(svg, e) {
    const [, rect, whisker] = svg.querySelectorAll("rect");
    const long = data.reach ? (50 * Math.abs(scoreOf(e))) / data.reach : 0;
    rect.setAttribute("class", sideOf(e));
    rect.setAttribute("x", scoreOf(e) < 0 ? 50 - long : 50);
    rect.setAttribute("width", long);
    if (!whisker) return;
    whisker.setAttribute("x", hasInterval(e) ? 50 + (50 * edges.low[e]) / data.reach : 0);
    whisker.setAttribute("width", hasInterval(e) ? (50 * (edges.high[e] - edges.low[e])) / data.reach : 0);
  }

  filtered.all = byId("n-matching").textContent;
  byId("filter").addEventListener("input", filtered);
  table.addEventListener("keydown", (event) => {
    const row = event.target.closest("tr");
    const next = event.key === "ArrowDown" ? row.nextElementSibling : event.key === "ArrowUp" ? row.previousElementSibling : null;
    if (!next) return;
    event.preventDefault();
    row.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
}
