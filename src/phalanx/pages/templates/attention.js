"use strict";
/* Makes the page of attention answer: pointing at a cell reads it, clicking a head makes it large. The page is whole
   without it. Weights are read from the pictures: the alpha of a pixel is 255 times the square root of its weight. */
document.documentElement.classList.add("live");

const SVG = "http://www.w3.org/2000/svg";

async function weightsOf(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
  return { width: canvas.width, height: canvas.height, at: (row, column) => (pixels[4 * (row * canvas.width + column) + 3] / 255) ** 2 };
}

function live(figure) {
  const svg = figure.querySelector("svg"), image = figure.querySelector("image");
  const rows = [...figure.querySelectorAll(".rows text")], columns = [...figure.querySelectorAll(".cols text")];
  const box = ["x", "y", "width", "height"].map((name) => Number(image.getAttribute(name)));
  const cell = svg.appendChild(document.createElementNS(SVG, "rect"));
  const tip = figure.appendChild(document.createElement("div"));
  cell.setAttribute("class", "cell");
  tip.className = "tip";
  let weights = weightsOf(image.getAttribute("href"));

  const clear = () => {
    tip.hidden = true;
    cell.setAttribute("width", 0);
    for (const label of [...rows, ...columns]) label.classList.remove("faded");
  };
  clear();

  svg.addEventListener("pointermove", async (event) => {
    const [x, y, width, height] = box, sight = svg.getBoundingClientRect();
    const column = Math.floor((event.clientX - sight.left - x) / width * columns.length);
    const row = Math.floor((event.clientY - sight.top - y) / height * rows.length);
    if (row < 0 || column < 0 || row >= rows.length || column >= columns.length) return clear();
    const weight = (await weights).at(row, column);
    cell.setAttribute("x", x + column * width / columns.length);
    cell.setAttribute("y", y + row * height / rows.length);
    cell.setAttribute("width", width / columns.length);
    cell.setAttribute("height", height / rows.length);
    rows.forEach((label, place) => label.classList.toggle("faded", place !== row));
    columns.forEach((label, place) => label.classList.toggle("faded", place !== column));
    tip.replaceChildren(document.createElement("b"), `${(100 * weight).toPrecision(2)} %`);
    tip.firstChild.textContent = `${rows[row].dataset.token} → ${columns[column].dataset.token}`;
    tip.hidden = false;
    const whole = figure.getBoundingClientRect();
    tip.style.left = `${Math.min(event.clientX - whole.left + 14, whole.width - tip.offsetWidth)}px`;
    tip.style.top = `${event.clientY - whole.top + 14}px`;
  });
  svg.addEventListener("pointerleave", clear);

  for (const button of document.querySelectorAll(".small-head")) {
    button.addEventListener("click", () => {
      for (const other of document.querySelectorAll(".small-head")) other.setAttribute("aria-pressed", other === button);
      const address = button.querySelector("img").src, name = button.dataset.name;
      image.setAttribute("href", address);
      weights = weightsOf(address);
      document.querySelector(".chosen-head").textContent = name[0].toUpperCase() + name.slice(1);
      document.querySelector(".chosen-caption").textContent = `This head looks: ${button.dataset.caption}`;
      clear();
      document.getElementById("large").scrollIntoView();
    });
  }
}

document.querySelectorAll(".heat").forEach(live);
