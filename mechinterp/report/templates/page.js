"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("payload").textContent);
  const words = [...byId("flow").querySelectorAll(".word")];
  const buttons = [...byId("outputs").querySelectorAll(".output")];
  const lines = [...byId("heat").tBodies[0].rows];
  const cells = lines.map((line) => [...line.querySelectorAll("td")]);
  const scoreRows = new Map([...byId("scores").tBodies[0].rows].map((row) => [+row.dataset.i, row]));
  const meanRow = data.rows.length > 1 ? data.rows.length - 1 : -1;
  let selected = 0;
  let current = null;

  document.documentElement.classList.add("js");

  function tokenElement(text) {
    const [, before, core, after] = text.match(/^(␣*)(.*?)(␣*)$/su);
    const element = document.createElement("bdi");
    element.className = "tok";
    for (const [place, part] of [before, core, after].entries()) {
      const span = document.createElement("span");
      span.textContent = part;
      if (place !== 1) span.className = "ws";
      if (part) element.append(span);
    }
    return element;
  }

  function outputElement(r, meanName) {
    return r === meanRow ? document.createTextNode(meanName) : tokenElement(data.rows[r].token);
  }

  function setColour(element, name) {
    element.classList.remove(...[...element.classList].filter((c) => /^(?:[np]\d+|z|na)$/.test(c)));
    element.classList.add(name);
  }

  function setBar(holder, [x, width, side]) {
    const rect = holder.querySelector("rect:last-child");
    rect.setAttribute("class", side);
    rect.setAttribute("x", x);
    rect.setAttribute("width", width);
  }

  function flipText(r, i, changes, stays) {
    const n = data.rows[r].flips[i];
    if (r === meanRow && n) return `${changes} at ${n} of ${data.n_outputs} outputs`;
    return n ? changes : stays;
  }

  function rankText(row, i) {
    return row.rank[i] === null ? "not attributed" : `${row.rank[i]} of ${row.n_ranked}`;
  }

  function describe(r, i) {
    const row = data.rows[r];
    const input = data.inputs[i];
    byId("d-token").replaceChildren(tokenElement(input.token));
    byId("d-output").replaceChildren(outputElement(r, "mean"));
    byId("d-score").textContent = row.exact[i];
    byId("d-rank").textContent = rankText(row, i);
    byId("d-share").textContent = row.share[i];
    byId("d-pos").textContent = input.pos;
    byId("d-id").textContent = input.id;
    byId("d-flips").textContent = row.rank[i] === null ? "–" : flipText(r, i, "changes", "stays");
    setBar(byId("d-bar"), row.bar[i]);
    link(r, i);
  }

  function link(r, i) {
    for (const element of document.querySelectorAll(".linked, .current")) {
      element.classList.remove("linked", "current");
    }
    for (const element of document.querySelectorAll(`.word[data-i="${i}"], th[data-i="${i}"], tr[data-i="${i}"]`)) {
      element.classList.add("linked");
    }
    cells[r][i].classList.add("current");
    words.forEach((word, index) => word.setAttribute("aria-selected", String(index === i)));
    current = i;
  }

  function select(r) {
    selected = r;
    const row = data.rows[r];
    buttons.forEach((button, index) => {
      button.setAttribute("aria-checked", String(index === r));
      button.tabIndex = index === r ? 0 : -1;
    });
    lines.forEach((line, index) => line.classList.toggle("selected", index === r));
    byId("next").replaceChildren(outputElement(r, ""));
    byId("next").parentElement.hidden = r === meanRow;
    byId("scores-of").replaceChildren(outputElement(r, "the mean over outputs"));
    words.forEach((word, i) => {
      setColour(word, row.colour[i]);
      word.classList.toggle("flip", row.flips[i] > 0);
      word.hidden = data.inputs[i].role === "output" && row.rank[i] === null;
    });
    scoreRows.forEach((element, i) => fillScoreRow(element, r, i));
    byId("scores").tBodies[0].append(...row.order.map((i) => scoreRows.get(i)));
    const shown = current === null || words[current].hidden ? row.order[0] : current;
    words.forEach((word, i) => { word.tabIndex = i === shown ? 0 : -1; });
    describe(r, shown);
  }

  function fillScoreRow(element, r, i) {
    const row = data.rows[r];
    element.classList.toggle("unranked", row.rank[i] === null);
    element.querySelector(".rank").textContent = row.rank[i] ?? "–";
    element.querySelector(".score").textContent = row.exact[i];
    element.querySelector(".share").textContent = row.share[i];
    element.querySelector(".flips").textContent = flipText(r, i, "changes", "");
    setBar(element, row.bar[i]);
  }

  /* One element of a group is in the tab order; arrow keys move between the others. */
  function moveFocus(from, to) {
    from.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  }

  function stepped(key, index, length) {
    if (key === "Home") return 0;
    if (key === "End") return length - 1;
    if (key === "ArrowRight" || key === "ArrowDown") return (index + 1) % length;
    if (key === "ArrowLeft" || key === "ArrowUp") return (index - 1 + length) % length;
    return null;
  }

  function steppedInGrid(event, r, i) {
    const lastRow = cells.length - 1;
    const lastColumn = data.inputs.length - 1;
    const far = event.ctrlKey || event.metaKey;
    switch (event.key) {
      case "ArrowRight": return [r, Math.min(lastColumn, i + 1)];
      case "ArrowLeft": return [r, Math.max(0, i - 1)];
      case "ArrowDown": return [Math.min(lastRow, r + 1), i];
      case "ArrowUp": return [Math.max(0, r - 1), i];
      case "Home": return [far ? 0 : r, 0];
      case "End": return [far ? lastRow : r, lastColumn];
      default: return null;
    }
  }

  byId("outputs").addEventListener("keydown", (event) => {
    const next = stepped(event.key, buttons.indexOf(event.target.closest(".output")), buttons.length);
    if (next === null) return;
    event.preventDefault();
    select(next);
    buttons[next].focus();
  });
  byId("outputs").addEventListener("click", (event) => {
    const button = event.target.closest(".output");
    if (button) select(+button.dataset.r);
  });

  const wordOf = (event) => event.target.closest(".word");
  for (const kind of ["mouseover", "focusin"]) {
    byId("flow").addEventListener(kind, (event) => {
      if (wordOf(event)) describe(selected, +wordOf(event).dataset.i);
    });
    byId("scores").addEventListener(kind, (event) => {
      const row = event.target.closest("tr[data-i]");
      if (row) describe(selected, +row.dataset.i);
    });
    byId("heat").addEventListener(kind, (event) => {
      const cell = event.target.closest("tbody td");
      if (cell) describe(+cell.parentElement.dataset.r, +cell.dataset.i);
    });
  }
  byId("flow").addEventListener("keydown", (event) => {
    const word = wordOf(event);
    const shown = words.filter((other) => !other.hidden);
    const next = word && stepped(event.key, shown.indexOf(word), shown.length);
    if (next === null) return;
    event.preventDefault();
    moveFocus(word, shown[next]);
  });
  byId("flow").addEventListener("click", (event) => {
    const word = wordOf(event);
    if (word) moveFocus(words.find((other) => other.tabIndex === 0), word);
  });

  byId("heat").addEventListener("keydown", (event) => {
    const cell = event.target.closest("tbody td");
    if (!cell) return;
    const r = +cell.parentElement.dataset.r;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      select(r);
      return;
    }
    const next = steppedInGrid(event, r, +cell.dataset.i);
    if (next === null) return;
    event.preventDefault();
    moveFocus(cell, cells[next[0]][next[1]]);
  });
  byId("heat").addEventListener("click", (event) => {
    const line = event.target.closest("tbody tr");
    if (!line) return;
    select(+line.dataset.r);
    const cell = event.target.closest("td");
    if (cell) moveFocus(byId("heat").querySelector('td[tabindex="0"]'), cell);
  });

  select(0);
})();
