"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  document.documentElement.classList.add("js");
  const data = JSON.parse(byId("payload").textContent);
  const body = byId("grid").tBodies[0];
  const state = { score: 0, case: 0, row: 0, column: 0, marked: null, link: null };
  const nameOf = (row, column) => `L${data.layers[row]}H${data.heads[column]}`;
  const cellOf = (row, column) => body.rows[row].cells[column + 1];

  function colour(index) {
    state.score = index;
    const score = data.scores[index];
    score.classes.forEach((line, row) => line.forEach((name, column) => {
      const cell = cellOf(row, column);
      cell.className = name;
      cell.firstElementChild.textContent = score.texts[row][column];
    }));
    cellOf(state.row, state.column).classList.add("current");
    byId("score-name").textContent = score.name;
    byId("score-largest").textContent = score.largest;
  }

  /* Rows in thousandths, without the first key: what is left adds up to a thousand again. */
  function setAside(rows) {
    return rows.map((row) => {
      const left = row.slice(1).reduce((sum, weight) => sum + weight, 0);
      return row.map((weight, src) => (src && left >= 20 ? (1000 * weight) / left : 0));
    });
  }

  function showPattern() {
    const { tokens, heads } = data.cases[state.case];
    const rows = heads[nameOf(state.row, state.column)];
    byId("no-pattern").hidden = Boolean(rows);
    byId("pattern-map").hidden = !rows;
    byId("pattern-at").textContent = "";
    if (!rows) return;
    const shown = byId("aside").checked ? setAside(rows) : rows;
    const room = Math.min(660, byId("pattern-map").clientWidth);
    pattern.show(byId("pattern-map"), tokens, shown, room, (pos, src, weight) => {
      byId("pattern-at").replaceChildren("from ", make.element("bdi", "tok", tokens[pos]), ` (${pos}) to `, make.element("bdi", "tok", tokens[src]), ` (${src}): `, make.element("b", "num", weight.toFixed(3)));
    }, state.marked, 30);
  }

  function pick(row, column, marked = null) {
    const before = cellOf(state.row, state.column);
    before.classList.remove("current");
    before.removeAttribute("tabindex");
    Object.assign(state, { row, column, marked });
    const cell = cellOf(row, column);
    cell.classList.add("current");
    cell.tabIndex = 0;
    byId("head-name").textContent = nameOf(row, column);
    document.querySelectorAll(".head-scores dd").forEach((entry, i) => {
      entry.textContent = data.scores[i].texts[row][column];
    });
    showPattern();
  }

  function pickLink(tr) {
    document.querySelector("#links tr.current")?.classList.remove("current");
    tr.classList.add("current");
    const [query, key, head] = data.cases[state.case].links[+tr.dataset.link];
    const [, layer, number] = head.match(/^L(\d+)H(\d+)$/);
    const places = [data.layers.indexOf(+layer), data.heads.indexOf(+number)];
    if (places.every((place) => place >= 0)) pick(...places, [query, key]);
  }

  function strongest() {
    const first = data.scores[state.score].order[0];
    return [Math.floor(first / data.heads.length), first % data.heads.length];
  }

  function chooseCase(index) {
    state.case = index;
    for (const part of document.querySelectorAll("[data-case]")) part.hidden = +part.dataset.case !== index;
    const row = document.querySelector(`#links tbody[data-case="${index}"] tr[data-link]`);
    if (row) pickLink(row);
    else pick(...strongest());
  }

  radios("scores", colour);
  radios("cases", chooseCase);

  body.addEventListener("click", (event) => {
    const cell = event.target.closest("td");
    if (!cell) return;
    pick(cell.parentElement.sectionRowIndex, cell.cellIndex - 1);
    cell.focus();
  });
  body.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const row = Math.max(0, Math.min(data.layers.length - 1, state.row + step[0]));
    const column = Math.max(0, Math.min(data.heads.length - 1, state.column + step[1]));
    pick(row, column);
    cellOf(row, column).focus();
  });
  byId("links").addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-link]");
    if (row) pickLink(row);
  });
  byId("links").addEventListener("keydown", (event) => {
    const row = event.target.closest("tr[data-link]");
    if (row && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      pickLink(row);
    }
  });
  for (const row of document.querySelectorAll("#links tr[data-link]")) row.tabIndex = 0;
  byId("aside").addEventListener("change", showPattern);
  let width = 0;
  new ResizeObserver(() => {
    if (byId("pattern-map").clientWidth === width) return;
    width = byId("pattern-map").clientWidth;
    showPattern();
  }).observe(byId("pattern-map"));
  chooseCase(0);
})();
