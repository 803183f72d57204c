"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  document.documentElement.classList.add("js");
  const holder = byId("maps");
  if (!holder || !byId("panel")) return;
  const data = JSON.parse(byId("payload").textContent);
  const maps = [...holder.querySelectorAll(".heat")].map((table) => ({
    table,
    heads: [...table.tHead.rows[1].cells].slice(1),
    rows: [...table.tBodies[0].rows].map((row) => [...row.cells]),
  }));
  const nRows = maps[0].rows.length;
  const nColumns = maps[0].heads.length;
  const places = [...byId("d-place").querySelectorAll(".at")];
  const strongest = new Map([...byId("ranked").tBodies[0].rows].map((row) => [row.dataset.at, row]));
  const cellOf = ([m, r, c]) => maps[m].rows[r][c + 1];

  function placeOf(cell) {
    const r = cell.parentElement.sectionRowIndex;
    return [maps.findIndex((map) => map.table.contains(cell)), r, cell.cellIndex - 1];
  }

  function setBar(svg, flat) {
    const [x, width, side] = data.bar[flat];
    const rect = svg.querySelector("rect:nth-child(2)");
    rect.setAttribute("class", side);
    rect.setAttribute("x", x);
    rect.setAttribute("width", width);
    const whisker = svg.querySelector(".whisker");
    if (!whisker) return;
    const [left, length] = data.whisker[flat] ?? [0, 0];
    whisker.setAttribute("x", left);
    whisker.setAttribute("width", length);
  }

  function describe(place) {
    const [m, r, c] = place;
    const { heads, rows, table } = maps[m];
    const flat = (m * nRows + r) * nColumns + c;
    const labels = [rows[r][0], heads[c]];
    if (places.length === 3) labels.unshift(table.closest("figure").querySelector("figcaption > span"));
    places.forEach((element, i) => {
      element.replaceChildren(...[...labels[i].firstElementChild.cloneNode(true).childNodes]);
    });
    byId("d-value").textContent = data.exact[flat];
    const missing = data.rank[flat] === null;
    if (byId("d-interval")) byId("d-interval").textContent = data.interval[flat];
    byId("d-rank").textContent = missing ? "not computed" : `${data.rank[flat]} of ${data.n_ranked}`;
    byId("d-share").textContent = data.share[flat];
    setBar(byId("d-bar").firstElementChild, flat);
    for (const element of document.querySelectorAll(".linked, .current")) {
      element.classList.remove("linked", "current");
    }
    cellOf(place).classList.add("current");
    for (const element of [rows[r][0], heads[c]]) element.classList.add("linked");
    strongest.get((places.length === 3 ? place : [r, c]).join(" "))?.classList.add("linked");
  }

  function stepped(event, [m, r, c]) {
    const far = event.ctrlKey || event.metaKey;
    switch (event.key) {
      case "ArrowRight": return [m, r, Math.min(nColumns - 1, c + 1)];
      case "ArrowLeft": return [m, r, Math.max(0, c - 1)];
      case "ArrowDown": return [m, Math.min(nRows - 1, r + 1), c];
      case "ArrowUp": return [m, Math.max(0, r - 1), c];
      case "Home": return [m, far ? 0 : r, 0];
      case "End": return [m, far ? nRows - 1 : r, nColumns - 1];
      default: return null;
    }
  }

  /* One cell of each map is in the tab order; arrow keys move between the others. */
  function moveFocus(place) {
    maps[place[0]].table.querySelector("td[tabindex]").removeAttribute("tabindex");
    cellOf(place).tabIndex = 0;
    cellOf(place).focus();
  }

  for (const kind of ["mouseover", "focusin"]) {
    holder.addEventListener(kind, (event) => {
      const cell = event.target.closest("tbody td");
      if (cell) describe(placeOf(cell));
    });
    byId("ranked").addEventListener(kind, (event) => {
      const row = event.target.closest("tr[data-at]");
      if (row) describe([0, ...row.dataset.at.split(" ").map(Number)].slice(-3));
    });
  }
  holder.addEventListener("keydown", (event) => {
    const cell = event.target.closest("tbody td");
    const next = cell && stepped(event, placeOf(cell));
    if (!next) return;
    event.preventDefault();
    moveFocus(next);
  });
  holder.addEventListener("click", (event) => {
    const cell = event.target.closest("tbody td");
    if (cell) moveFocus(placeOf(cell));
  });
  for (const map of maps) map.rows[0][1].tabIndex = 0;
  describe([0, ...byId("ranked").tBodies[0].rows[0].dataset.at.split(" ").map(Number)].slice(-3));
})();
