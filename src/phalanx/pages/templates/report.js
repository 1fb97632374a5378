"use strict";
/* Makes the charts answer: hover reads them, a drag zooms, a name switches its line. The page is whole without it.
   A chart's numbers are its SVG paths, in data units with y negated; the viewBox is the window on them. */
document.documentElement.classList.add("live");

const SVG = "http://www.w3.org/2000/svg";

function points(line) {
  const numbers = line.querySelector("path").getAttribute("d").match(/-?\d[\d.]*(?:e[+-]?\d+)?/g) || [];
  const found = [];
  for (let i = 0; i + 1 < numbers.length; i += 2) found.push([Number(numbers[i]), -Number(numbers[i + 1])]);
  return found;
}

function text(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-4) return value.toExponential(2);
  return value.toLocaleString("en", size >= 1000 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 4 });
}

function roundSteps(low, high, wanted) {
  const raw = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i <= high / step + 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

function nearest(list, x) {
  let low = 0, high = list.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (list[middle][0] < x) low = middle; else high = middle;
  }
  return Math.abs(list[low][0] - x) <= Math.abs(list[high][0] - x) ? list[low] : list[high];
}

function live(figure) {
  const plot = figure.querySelector(".plot"), frame = figure.querySelector(".frame");
  const lines = [...figure.querySelectorAll(".line")].map((node) => ({ node, name: node.dataset.name, points: points(node) }));
  const first = { box: plot.getAttribute("viewBox"), y: figure.querySelector(".ylabels").innerHTML,
    x: figure.querySelector(".xlabels").innerHTML, grid: figure.querySelector(".grid").getAttribute("d") };
  const cursor = plot.appendChild(document.createElementNS(SVG, "path"));
  const chosen = plot.appendChild(document.createElementNS(SVG, "rect"));
  const tip = figure.appendChild(document.createElement("div"));
  cursor.setAttribute("class", "cursor");
  chosen.setAttribute("class", "chosen");
  tip.className = "tip";
  tip.hidden = true;
  let from = null;

  const view = () => plot.getAttribute("viewBox").split(" ").map(Number);
  const at = (event) => {
    const [x, , width] = view(), box = plot.getBoundingClientRect();
    return x + Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) * width;
  };
  const shown = () => lines.filter((line) => !line.node.classList.contains("off") && line.points.length);

  function label(svg, values, place) {
    svg.replaceChildren(...values.map((value) => {
      const node = document.createElementNS(SVG, "text");
      place(node, value);
      node.textContent = text(value);
      return node;
    }));
  }

  function look(x0, x1) {
    const inside = shown().flatMap((line) => line.points.filter(([x]) => x >= x0 && x <= x1).map(([, y]) => y));
    if (inside.length < 2) return;
    let low = inside.reduce((a, b) => Math.min(a, b)), high = inside.reduce((a, b) => Math.max(a, b));
    const air = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
    low -= air;
    high += air;
    plot.setAttribute("viewBox", `${x0} ${-high} ${x1 - x0} ${high - low}`);
    const ys = roundSteps(low, high, 5), xs = roundSteps(x0, x1, 6);
    figure.querySelector(".grid").setAttribute("d", ys.map((y) => `M${x0} ${-y}H${x1}`).join(""));
    label(figure.querySelector(".ylabels"), ys, (node, y) => {
      node.setAttribute("x", "100%");
      node.setAttribute("dy", "0.33em");
      node.setAttribute("y", `${(high - y) / (high - low) * 100}%`);
    });
    label(figure.querySelector(".xlabels"), xs, (node, x) => {
      node.setAttribute("y", "14");
      node.setAttribute("x", `${(x - x0) / (x1 - x0) * 100}%`);
    });
  }

  function read(event) {
    const [x0, y0, width, height] = view(), all = shown();
    if (!all.length) return;
    const densest = all.reduce((a, b) => (b.points.length > a.points.length ? b : a));
    const x = nearest(densest.points, at(event))[0];
    cursor.setAttribute("d", `M${x} ${y0}V${y0 + height}`);
    const head = document.createElement("b");
    head.textContent = `${figure.dataset.x} ${text(x)}`;
    const rows = all.map((line) => {
      const [px, py] = nearest(line.points, x), row = document.createElement("div");
      row.textContent = `${line.name} ${text(py)}` + (Math.abs(px - x) > width / 100 ? ` (${figure.dataset.x} ${text(px)})` : "");
      return row;
    });
    tip.replaceChildren(head, ...rows);
    tip.hidden = false;
    const box = plot.getBoundingClientRect(), outer = figure.getBoundingClientRect();
    const here = box.left - outer.left + (x - x0) / width * box.width;
    const right = here + 14 + tip.offsetWidth > outer.width;
    tip.style.left = `${Math.max(0, right ? here - 14 - tip.offsetWidth : here + 14)}px`;
    tip.style.top = `${frame.offsetTop + 8}px`;
  }

  function still() {
    tip.hidden = true;
    cursor.removeAttribute("d");
  }

  plot.addEventListener("pointermove", (event) => {
    read(event);
    if (from === null) return;
    const [, y0, , height] = view(), to = at(event);
    for (const [name, value] of [["x", Math.min(from, to)], ["width", Math.abs(to - from)], ["y", y0], ["height", height]])
      chosen.setAttribute(name, value);
  });
  plot.addEventListener("pointerleave", still);
  plot.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "mouse" || event.button !== 0) return read(event);
    from = at(event);
    plot.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  plot.addEventListener("pointerup", (event) => {
    if (from === null) return;
    const to = at(event), [, , width] = view(), a = Math.min(from, to), b = Math.max(from, to);
    from = null;
    chosen.removeAttribute("width");
    if (b - a > width / 50) look(a, b);
  });
  plot.addEventListener("pointercancel", () => { from = null; chosen.removeAttribute("width"); still(); });
  plot.addEventListener("dblclick", () => {
    plot.setAttribute("viewBox", first.box);
    figure.querySelector(".ylabels").innerHTML = first.y;
    figure.querySelector(".xlabels").innerHTML = first.x;
    figure.querySelector(".grid").setAttribute("d", first.grid);
  });
  for (const key of figure.querySelectorAll("button.key")) key.addEventListener("click", () => {
    const off = lines[Number(key.dataset.line)].node.classList.toggle("off");
    key.setAttribute("aria-pressed", String(!off));
  });
}

document.querySelectorAll(".chart").forEach(live);
