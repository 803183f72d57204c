"use strict";
/* A drawing as a file of its own: what the style sheet says of it goes along. */
function saveDrawing(svg, name) {
  const KEPT = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "stroke-linecap", "opacity", "font-family", "font-size", "font-weight", "visibility", "display"];
  const copy = svg.cloneNode(true);
  const from = svg.querySelectorAll("*"), to = copy.querySelectorAll("*");
  from.forEach((one, i) => {
    const style = getComputedStyle(one);
    for (const name of KEPT) to[i].setAttribute(name, style.getPropertyValue(name));
    for (const name of ["role", "tabindex", "aria-pressed", "data-key"]) to[i].removeAttribute(name);
  });
  [...copy.querySelectorAll('[display="none"]')].forEach((hidden) => hidden.remove());
  const ground = make.shape(null, "rect", { width: "100%", height: "100%", fill: getComputedStyle(svg.closest(".card")).backgroundColor });
  copy.prepend(ground);
  copy.setAttribute("xmlns", svg.namespaceURI);
  const link = make.element("a");
  link.href = URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
