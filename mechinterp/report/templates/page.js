"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("payload").textContent);
  const buttons = [...byId("outputs").querySelectorAll(".output")];
  const choices = [...document.querySelectorAll("#levels .choice")];
  const rowBlocks = [...document.querySelectorAll(".by-row")];
  const meanRow = data.outputs.length > 1 ? data.outputs.length - 1 : -1;
  const levels = [...document.querySelectorAll(".level")].map(levelOf);
  let selected = 0;
  let shown = levels[0];

  document.documentElement.classList.add("js");

  function levelOf(root, v) {
    const heat = root.querySelector(".heat");
    const lines = [...heat.tBodies[0].rows];
    const scores = root.querySelector(".scores").tBodies[0];
    return {
      root, heat, lines, scores, ...data.levels[v],
      flow: root.querySelector(".flow"),
      words: [...root.querySelectorAll(".word[data-i]")],
      cells: lines.map((line) => new Map([...line.querySelectorAll("td")].map((td) => [+td.dataset.i, td]))),
      listed: [...heat.querySelectorAll("th[data-i]")].map((th) => +th.dataset.i),
      scoreRows: new Map([...scores.rows].map((row) => [+row.dataset.i, row])),
      beside: document.querySelector(`.beside[data-v="${v}"]`),
      current: null,
    };
  }

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
    return r === meanRow ? document.createTextNode(meanName) : tokenElement(data.outputs[r]);
  }

  function setColour(element, name) {
    element.classList.remove(...[...element.classList].filter((c) => /^(?:(?:pro|con)\d+|z|na)$/.test(c)));
    element.classList.add(name);
  }

  function setBar(holder, [x, width, side], whisker) {
    const [, rect] = holder.querySelectorAll("rect");
    rect.setAttribute("class", side);
    rect.setAttribute("x", x);
    rect.setAttribute("width", width);
    holder.querySelector(".whisker")?.remove();
    if (!whisker) return;
    const line = rect.cloneNode();
    const shape = { class: "whisker", x: whisker[0], width: whisker[1], y: 3.25, height: 1.5 };
    for (const [name, value] of Object.entries(shape)) line.setAttribute(name, value);
    rect.after(line);
  }

  function flipText(row, r, i, changes, stays) {
    const n = row.flips[i];
    if (r === meanRow && n) return `${changes} at ${n} of ${data.n_outputs} outputs`;
    return n ? changes : stays;
  }

  function rankText(row, i) {
    return row.rank[i] === null ? "not attributed" : `${row.rank[i]} of ${row.n_ranked}`;
  }

  function describe(level, r, i) {
    const row = level.rows[r];
    const input = level.inputs[i];
    byId("d-token").replaceChildren(tokenElement(input.label));
    byId("d-output").replaceChildren(outputElement(r, "mean"));
    byId("d-score").textContent = row.exact[i];
    byId("d-error").textContent = row.error[i];
    byId("d-unit").textContent = level.unit;
    byId("d-rank").textContent = rankText(row, i);
    byId("d-share").textContent = row.share[i];
    byId("d-pos").textContent = input.where;
    byId("d-id").textContent = input.id < 0 ? "–" : input.id;
    const flips = byId("d-flips");
    if (flips) flips.textContent = row.rank[i] === null ? "–" : flipText(row, r, i, "changes", "stays");
    setBar(byId("d-bar"), row.bar[i], row.whisker[i]);
    link(level, r, i);
  }

  /* The whole unit, wherever its tokens stand, in every view. */
  function link(level, r, i) {
    for (const element of document.querySelectorAll(".linked, .current")) {
      element.classList.remove("linked", "current");
    }
    for (const place of [level.root, level.beside]) {
      for (const element of place?.querySelectorAll(`[data-i="${i}"]:not(td)`) ?? []) {
        element.classList.add("linked");
      }
    }
    level.cells[r].get(i)?.classList.add("current");
    for (const word of level.words) word.setAttribute("aria-selected", String(+word.dataset.i === i));
    level.current = i;
  }

  function choose(group, index) {
    group.forEach((button, place) => {
      button.setAttribute("aria-checked", String(index === place));
      button.tabIndex = index === place ? 0 : -1;
    });
  }

  function show(v) {
    shown = levels[v];
    choose(choices, v);
    if (choices.length) {
      for (const [place, level] of levels.entries()) {
        level.root.open = true;
        level.root.hidden = place !== v;
      }
    }
    select(selected);
  }

  function select(r) {
    selected = r;
    choose(buttons, r);
    for (const block of rowBlocks) {
      block.open = true;
      block.hidden = +block.dataset.r !== r;
    }
    for (const level of levels) fill(level, r);
    const row = shown.rows[r];
    const isGone = shown.current === null
      || shown.words.every((word) => +word.dataset.i !== shown.current || word.hidden);
    const i = isGone ? row.order[0] : shown.current;
    const first = shown.words.find((word) => +word.dataset.i === i);
    for (const word of shown.words) word.tabIndex = word === first ? 0 : -1;
    describe(shown, r, i);
  }

  function fill(level, r) {
    const row = level.rows[r];
    const { root } = level;
    level.lines.forEach((line, index) => line.classList.toggle("selected", index === r));
    root.querySelector(".next-token").replaceChildren(outputElement(r, ""));
    root.querySelector(".next").hidden = r === meanRow;
    root.querySelector(".scores-of").replaceChildren(outputElement(r, "the mean over outputs"));
    root.querySelector(".adds-up").textContent = row.adds_up;
    for (const word of level.words) {
      const i = +word.dataset.i;
      setColour(word, row.colour[i]);
      word.classList.toggle("flip", row.flips[i] > 0);
      word.hidden = level.inputs[i].role === "output" && row.rank[i] === null;
    }
    level.scoreRows.forEach((element, i) => fillScoreRow(element, row, r, i));
    level.scores.append(...row.order.filter((i) => level.scoreRows.has(i)).map((i) => level.scoreRows.get(i)));
  }

  function fillScoreRow(element, row, r, i) {
    element.classList.toggle("unranked", row.rank[i] === null);
    element.querySelector(".rank").textContent = row.rank[i] ?? "–";
    element.querySelector(".score").textContent = row.exact[i];
    element.querySelector(".share").textContent = row.share[i];
    const flips = element.querySelector(".flips");
    if (flips) flips.textContent = flipText(row, r, i, "changes", "");
    const error = element.querySelector(".error");
    if (error) error.textContent = row.error[i];
    setBar(element, row.bar[i], row.whisker[i]);
  }

  /* One element of a group is in the tab order; arrow keys move between the others. */
  function moveFocus(from, to) {
    if (from) from.tabIndex = -1;
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

  function steppedInGrid(level, event, r, i) {
    const lastRow = level.cells.length - 1;
    const { listed } = level;
    const lastColumn = listed.length - 1;
    const column = listed.indexOf(i);
    const far = event.ctrlKey || event.metaKey;
    switch (event.key) {
      case "ArrowRight": return [r, listed[Math.min(lastColumn, column + 1)]];
      case "ArrowLeft": return [r, listed[Math.max(0, column - 1)]];
      case "ArrowDown": return [Math.min(lastRow, r + 1), i];
      case "ArrowUp": return [Math.max(0, r - 1), i];
      case "Home": return [far ? 0 : r, listed[0]];
      case "End": return [far ? lastRow : r, listed[lastColumn]];
      default: return null;
    }
  }

  function asRadios(holder, group, pick) {
    holder?.addEventListener("keydown", (event) => {
      const next = stepped(event.key, group.indexOf(event.target.closest("button")), group.length);
      if (next === null) return;
      event.preventDefault();
      pick(next);
      group[next].focus();
    });
    holder?.addEventListener("click", (event) => {
      const place = group.indexOf(event.target.closest("button"));
      if (place >= 0) pick(place);
    });
  }

  function listen(level) {
    const { flow, heat, scores, cells } = level;
    const wordOf = (event) => event.target.closest(".word[data-i]");
    for (const kind of ["mouseover", "focusin"]) {
      for (const place of [flow, level.beside]) {
        place?.addEventListener(kind, (event) => {
          if (wordOf(event)) describe(level, selected, +wordOf(event).dataset.i);
        });
      }
      scores.addEventListener(kind, (event) => {
        const row = event.target.closest("tr[data-i]");
        if (row) describe(level, selected, +row.dataset.i);
      });
      heat.addEventListener(kind, (event) => {
        const cell = event.target.closest("tbody td");
        if (cell) describe(level, +cell.parentElement.dataset.r, +cell.dataset.i);
      });
    }
    flow.addEventListener("keydown", (event) => {
      const word = wordOf(event);
      const there = level.words.filter((other) => !other.hidden);
      const next = word && stepped(event.key, there.indexOf(word), there.length);
      if (next === null) return;
      event.preventDefault();
      moveFocus(word, there[next]);
    });
    flow.addEventListener("click", (event) => {
      const word = wordOf(event);
      if (word) moveFocus(level.words.find((other) => other.tabIndex === 0), word);
    });
    heat.addEventListener("keydown", (event) => {
      const cell = event.target.closest("tbody td");
      if (!cell) return;
      const r = +cell.parentElement.dataset.r;
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        select(r);
        return;
      }
      const next = steppedInGrid(level, event, r, +cell.dataset.i);
      if (next === null) return;
      event.preventDefault();
      moveFocus(cell, cells[next[0]].get(next[1]));
    });
    heat.addEventListener("click", (event) => {
      const line = event.target.closest("tbody tr");
      if (!line) return;
      select(+line.dataset.r);
      const cell = event.target.closest("td");
      if (cell) moveFocus(heat.querySelector('td[tabindex="0"]'), cell);
    });
  }

  asRadios(byId("outputs"), buttons, select);
  asRadios(byId("levels"), choices, show);
  levels.forEach(listen);
  show(0);
})();
