"use strict";
/* Elements with their text, always as text. */
const make = {
  element(name, className, text) {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  },
  shape(parent, name, attributes, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    parent?.append(made);
    return made;
  },
};

/* What a page says of each edge: names, numbers as Python prints them, and who holds it. */
function wordsOf(data) {
  const { graph, edges } = data;
  const nodeNames = [...graph.writers, "logits"];
  const scoreOf = (e) => edges.s[e] ?? null;
  /* Which side a score is on, whatever its sign: the class of its colour. */
  function sideOf(e) {
    const score = scoreOf(e);
    if (score === null) return "none";
    return score < 0 === (data.supports === "negative") ? "supports" : "against";
  }
  function number(value) {
    if (value === null || value === undefined) return "–";
    let text = data.is_power ? value.toExponential(data.digits).replace(/e([+-])(\d)$/, "e$10$2") : value.toFixed(data.digits);
    if (Number(text) === 0) text = text.replace("-", "");
    else if (value > 0) text = `+${text}`;
    return text.replaceAll("-", "−");
  }
  const rough = (value) => Number(Math.abs(value).toPrecision(2)).toString().replaceAll("-", "−");
  const withUnit = (text) => (data.unit && text !== "–" ? `${text} ${data.unit}` : text);
  const count = (value) => value.toLocaleString("en-US");
  const edgeName = (e) => `${nodeNames[edges.w[e]]} → ${graph.readers[edges.r[e]]}`;
  const place = (e) => (edges.p ? `at ${graph.positions[edges.p[e]]}` : "");
  const rankOf = (e) => (scoreOf(e) === null ? "–" : edges.rank ? edges.rank[e] : e + 1);
  const hasInterval = (e) => (edges.low[e] ?? null) !== null && (edges.high[e] ?? null) !== null;
  const interval = (e) => (hasInterval(e) ? `${number(edges.low[e])} to ${number(edges.high[e])}` : "–");
  function heldBy(e) {
    const [first, second] = [edges.held[e] & 1, edges.held[e] & 2];
    if (!data.names) return first ? "yes" : "no";
    return first && second ? "both" : first ? data.names[0] : second ? data.names[1] : "neither";
  }
  function heldText(e) {
    if (!data.names) return edges.held[e] ? "in the circuit" : "not in the circuit";
    return ["in neither circuit", `only in ${data.names[0]}`, `only in ${data.names[1]}`, "in both circuits"][edges.held[e]];
  }
  return { nodeNames, scoreOf, sideOf, number, rough, withUnit, count, edgeName, place, rankOf, hasInterval, interval, heldBy, heldText };
}

/* Buttons of which one is chosen, by click or arrow keys; gives a function that chooses. */
function radios(id, pick) {
  const buttons = [...(document.getElementById(id)?.querySelectorAll("button") ?? [])];
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
