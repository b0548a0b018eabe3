// The three pictures of optlab/widgets.js: the path, the error, the plane. Each has a part that
// `lay` draws when its size or its rule changes, and a part that `move` draws on every move.
// Text keeps its size on every screen, for a picture is drawn in the pixels that it has.

const SVG = "http://www.w3.org/2000/svg";
const FAR = 1e4; // px: browsers draw no coordinates as large as a diverging run's
const MARGIN = { left: 50, right: 12, top: 12, bottom: 38 };
const CONTOURS = 9;
const CELLS = [48, 32]; // of the grid on which a boundary is looked for
const FINE_CELLS = [72, 54]; // in the plane, where regimes come to a tip
const BISECTIONS = 7; // and how often each crossing is then halved
const HIGHEST_ERROR = 10;
const DECADES_BELOW_GOAL = 2;
const FAST = [0, 114, 178]; // blue, by its opacity: it reads on light and on dark paper
const HATCH = [128, 128, 128, 80];
const PIXELS = 2; // of the screen, per pixel of the plane's colours

function make(parent, tag, attributes = {}, text = null) {
  const svg = tag === "svg" || parent.namespaceURI === SVG;
  const node = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== null) node.textContent = text;
  parent.append(node);
  return node;
}

// A scale takes a number to its pixel; `at` is the inverse.
function scale([low, high], [from, to], log = false) {
  const turn = log ? Math.log10 : (value) => value;
  const back = log ? (value) => 10 ** value : (value) => value;
  const [first, last] = [turn(low), turn(high)];
  const place = (value) => {
    const pixel = from + ((to - from) * (turn(value) - first)) / (last - first);
    return Math.min(FAR, Math.max(-FAR, pixel));
  };
  place.at = (pixel) => back(first + ((last - first) * (pixel - from)) / (to - from));
  return Object.assign(place, { low, high, log });
}

function ticks({ low, high, log }, room) {
  const decades = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
  if (log && decades[1] > decades[0]) {
    const every = Math.ceil((decades[1] - decades[0] + 1) / room);
    const count = Math.floor((decades[1] - decades[0]) / every) + 1;
    return Array.from({ length: count }, (_, i) => 10 ** (decades[1] - i * every));
  }
  const rough = (high - low) / room;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((multiple) => multiple * power >= rough) * power;
  const first = Math.ceil(low / step - 1e-9);
  const count = Math.floor(high / step + 1e-9) - first + 1;
  return Array.from({ length: count }, (_, i) => Number(((first + i) * step).toPrecision(6)));
}

// Many decades are all written as powers, few as plain numbers.
function tickWords(value, { low, high, log }) {
  if (!log || high / low < 1e4 || value === 1 || value === 10) return words(value);
  return `10${superscript(Math.round(Math.log10(value)))}`;
}

// Lines around the part of a frame for whose pixels `inside` holds, as the data of a path.
function outline(box, inside, [columns, rows] = CELLS) {
  const node = (i, j) => [box.left + (box.width * i) / columns, box.top + (box.height * j) / rows];
  const grid = Array.from({ length: columns + 1 }, (_, i) =>
    Array.from({ length: rows + 1 }, (_, j) => inside(...node(i, j))));
  const crossing = (a, b, first) => {
    for (let halving = 0; halving < BISECTIONS; halving++) {
      const middle = [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
      if (inside(...middle) === first) a = middle;
      else b = middle;
    }
    return a.map((pixel) => pixel.toFixed(1)).join(" ");
  };
  let data = "";
  for (let i = 0; i < columns; i++) {
    for (let j = 0; j < rows; j++) {
      const corners = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]];
      const cuts = [];
      corners.forEach(([p, q], k) => {
        const [r, s] = corners[(k + 1) % 4];
        if (grid[p][q] !== grid[r][s]) cuts.push(crossing(node(p, q), node(r, s), grid[p][q]));
      });
      for (let k = 0; k + 1 < cuts.length; k += 2) data += `M${cuts[k]}L${cuts[k + 1]}`;
    }
  }
  return data;
}

const line = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x} ${y}`).join("");
const dots = (points) => points.map(([x, y]) => `M${x} ${y}h0`).join("");
const seen = (points) => points.filter((point) => point.every(Number.isFinite));

class Picture {
  constructor(root, title, height) {
    this.figure = make(root, "figure", { class: "optlab-picture" });
    this.caption = make(this.figure, "figcaption", {}, title);
    this.svg = make(this.figure, "svg", { role: "img" });
    this.height = height;
  }

  // Clear, and draw a frame of these ranges. `paper` and `pen` are clipped to it; the first is
  // for what stays, the second for what moves.
  frame(x, y) {
    const { left, right, top, bottom } = MARGIN;
    const width = Math.max(220, this.figure.clientWidth);
    const box = { left, top, width: width - left - right, height: this.height - top - bottom };
    const floor = top + box.height;
    this.svg.replaceChildren();
    Object.entries({ width, height: this.height }).forEach((pair) => this.svg.setAttribute(...pair));
    this.box = box;
    this.x = scale(x.range, [left, left + box.width], x.log);
    this.y = scale(y.range, [floor, top], y.log);
    const area = { x: left, y: top, width: box.width, height: box.height };
    const clip = { ...area, viewBox: Object.values(area).join(" ") };
    make(this.svg, "rect", { class: "ground", ...area });
    this.paper = make(this.svg, "svg", clip);
    this.pen = make(this.svg, "svg", clip);
    make(this.svg, "rect", { class: "frame", ...area });
    for (const value of ticks(this.x, box.width / 60)) {
      make(this.svg, "path", { class: "frame", d: `M${this.x(value)} ${floor}v4` });
      this.label(this.svg, this.x(value), floor + 16, tickWords(value, this.x), "middle");
    }
    for (const value of y.label ? ticks(this.y, box.height / 34) : []) {
      make(this.svg, "path", { class: "frame", d: `M${left - 4} ${this.y(value)}h4` });
      this.label(this.svg, left - 7, this.y(value) + 4, tickWords(value, this.y), "end");
    }
    this.label(this.svg, left + box.width / 2, this.height - 5, x.label, "middle");
    const upright = this.label(this.svg, 0, 0, y.label, "middle");
    upright.setAttribute("transform", `translate(11 ${top + box.height / 2}) rotate(-90)`);
  }

  label(parent, x, y, text, anchor = "start", kind = "") {
    return make(parent, "text", { x, y, "text-anchor": anchor, class: kind }, text);
  }

  place(point) {
    return [this.x(point[0]), this.y(point[1])];
  }
}

class PathPicture extends Picture {
  lay({ scene }) {
    this.flat = scene.start.length === 1;
    const heights = Array.from({ length: 201 }, (_, i) =>
      scene.value(scene.view[0][0] + ((scene.view[0][1] - scene.view[0][0]) * i) / 200));
    const range = this.flat ? [-0.2 * Math.max(...heights), Math.max(...heights)] : scene.view[1];
    this.frame({ range: scene.view[0], label: "x" }, { range, label: this.flat ? "f(x)" : "y" });
    if (this.flat) {
      const curve = heights.map((height, i) => this.place([
        scene.view[0][0] + ((scene.view[0][1] - scene.view[0][0]) * i) / 200, height]));
      make(this.paper, "path", { class: "contour", d: line(curve) });
    } else this.contours(scene);
    const spot = (point) => this.place(this.flat ? [point[0], scene.value(...point)] : point);
    const [x, y] = spot(scene.minimum);
    make(this.paper, "path", { class: "minimum", d: `M${x - 5} ${y}h10M${x} ${y - 5}v10` });
    this.label(this.paper, x, y + 19, "minimum", "middle", "halo");
    const [left, top] = spot(scene.start);
    const before = left > this.box.left + this.box.width / 2;
    this.label(this.paper, left + (before ? -8 : 8), top - 7, "start", before ? "end" : "start",
      "halo");
  }

  // Levels at equal steps of the square root of the height's rank: even to the eye on a bowl.
  contours(scene) {
    const height = (px, py) => scene.value(this.x.at(px), this.y.at(py));
    const { left, top, width, height: tall } = this.box;
    const heights = Array.from({ length: 900 }, (_, i) =>
      height(left + (width * (i % 30)) / 29, top + (tall * Math.floor(i / 30)) / 29));
    heights.sort((a, b) => a - b);
    for (let k = 1; k <= CONTOURS; k++) {
      const level = heights[Math.floor(899 * (k / (CONTOURS + 1)) ** 1.6)];
      make(this.paper, "path", { class: "contour",
        d: outline(this.box, (px, py) => height(px, py) < level) });
    }
  }

  move({ scene, path, settings }) {
    const points = seen(path.slice(0, settings.budget + 1));
    const places = points.map((point) =>
      this.place(this.flat ? [point[0], scene.value(...point)] : point));
    this.pen.replaceChildren();
    make(this.pen, "path", { class: "path", d: line(places) });
    make(this.pen, "path", { class: "steps", d: dots(places) });
    make(this.pen, "path", { class: "begin", d: dots(places.slice(0, 1)) });
    make(this.pen, "path", { class: "end", d: dots(places.slice(-1)) });
    const last = points[points.length - 1].map((value) => words(value)).join(", ");
    const start = scene.start.map((value) => words(value)).join(", ");
    this.svg.setAttribute("aria-label", `Path of ${points.length - 1} steps on the landscape ${
      settings.scene}, from (${start}) to (${last}).`);
  }
}

class ErrorPicture extends Picture {
  lay({ settings, horizon, scene }) {
    const low = 10 ** (Math.floor(Math.log10(settings.goal)) - DECADES_BELOW_GOAL);
    this.frame({ range: [0, horizon], label: "step" },
      { range: [low, HIGHEST_ERROR], log: true, label: scene.quadratic ? "error" : "loss" });
    const [x, y] = this.place([settings.budget, settings.goal]);
    const { left, top, height } = this.box;
    make(this.paper, "rect", { class: "target", x: left, y, width: x - left,
      height: top + height - y });
    make(this.paper, "path", { class: "goal", d: `M${left} ${y}H${x}V${top + height}` });
    make(this.paper, "path", { class: "budget", d: `M${x} ${top}V${y}` });
    this.label(this.paper, left + 6, y + 15, `goal: ${words(settings.goal)}`, "start", "goal halo");
    this.label(this.paper, x - 5, top + 14, `${settings.budget} steps`, "end", "halo");
  }

  move({ curves, errors, hit, settings, scene }) {
    this.pen.replaceChildren();
    const draw = (values, kind) => make(this.pen, "path", { class: kind,
      d: line(seen(values.map((value, step) => this.place([step, Math.max(value, 1e-300)])))) });
    draw(errors, curves.length ? "whole" : "slow");
    for (const curve of curves) draw(curve.values, curve.kind);
    if (hit !== null) make(this.pen, "path", { class: "hit", d: dots([this.place([hit, errors[hit]])]) });
    this.svg.setAttribute("aria-label", `${scene.quadratic ? "Error" : "Loss"} against step on a log `
      + `scale: ${words(errors[settings.budget])} of its start after ${settings.budget} steps.`);
  }
}

class PlanePicture extends Picture {
  lay(state) {
    const { settings, rule } = state;
    this.frame({ range: settings.lr, log: true, label: "learning rate η" },
      { range: settings.beta, label: rule.momentum ? "momentum β" : "" });
    this.at = (px, py) => slowest(rule, state.scene, { lr: this.x.at(px), beta: this.y.at(py) });
    this.colours();
    for (const kind of this.regions()) {
      make(this.paper, "path", { class: "border",
        d: outline(this.box, (px, py) => this.at(px, py).regime === kind, FINE_CELLS) });
    }
  }

  // Blue by speed against the best rate in the plane, hatched where the run diverges.
  colours() {
    const [columns, rows] = [this.box.width, this.box.height].map((n) => Math.floor(n / PIXELS));
    const cells = Array.from({ length: columns * rows }, (_, i) => this.at(
      this.box.left + (this.box.width * ((i % columns) + 0.5)) / columns,
      this.box.top + (this.box.height * (Math.floor(i / columns) + 0.5)) / rows).rate);
    const best = Math.min(...cells.filter((rate) => rate > 0));
    const canvas = Object.assign(document.createElement("canvas"), { width: columns, height: rows });
    const pen = canvas.getContext("2d");
    const image = pen.createImageData(columns, rows);
    cells.forEach((rate, i) => {
      const stripe = ((i % columns) + Math.floor(i / columns)) % 6 === 0;
      const colour = rate < 1 ? [...FAST, 200 * Math.min(1, Math.log(rate) / Math.log(best))]
        : stripe ? HATCH : [0, 0, 0, 0];
      image.data.set(colour, 4 * i);
    });
    pen.putImageData(image, 0, 0);
    const { left: x, top: y, width, height } = this.box;
    make(this.paper, "image", { x, y, width, height, preserveAspectRatio: "none",
      href: canvas.toDataURL() });
  }

  // Name each regime where it is roomiest, if it has room. Returns those to draw lines around:
  // all but the commonest, whose lines are the others', and slivers too thin for a name.
  regions([columns, rows] = [32, 24]) {
    const spots = Array.from({ length: columns * rows }, (_, i) => {
      const x = this.box.left + (this.box.width * ((i % columns) + 0.5)) / columns;
      const y = this.box.top + (this.box.height * (Math.floor(i / columns) + 0.5)) / rows;
      return { x, y, kind: this.at(x, y).regime };
    });
    const { left, top, width, height } = this.box;
    const room = ({ x, y, kind }) => {
      const [half, tall] = [kind.length * 4, 9]; // px: half the name's width, and its height
      const edges = [(x - left) / half, (left + width - x) / half, (y - top) / tall,
        (top + height - y) / tall];
      const others = spots.filter((other) => other.kind !== kind).map((other) =>
        Math.max(Math.abs(other.x - x) / half, Math.abs(other.y - y) / tall));
      return Math.min(...edges, ...others);
    };
    const kinds = [...new Set(spots.map((spot) => spot.kind))];
    const count = (kind) => spots.filter((spot) => spot.kind === kind).length;
    kinds.sort((a, b) => count(b) - count(a));
    const named = kinds.filter((kind) => {
      const own = spots.filter((spot) => spot.kind === kind);
      const rooms = own.map(room);
      const most = Math.max(...rooms);
      const { x, y } = own[rooms.indexOf(most)];
      if (most > 0.9) this.label(this.paper, x, y + 4, kind, "middle", "halo");
      return most > 0.9;
    });
    return named.filter((kind) => kind !== kinds[0]);
  }

  move({ options, rule, slow }) {
    const [x, y] = this.place([options.lr, options.beta]);
    const { left, top, width, height } = this.box;
    this.pen.replaceChildren();
    const across = rule.momentum ? `M${left} ${y}H${left + width}` : "";
    make(this.pen, "path", { class: "cross", d: `M${x} ${top}V${top + height}${across}` });
    if (rule.momentum) make(this.pen, "circle", { class: "here", cx: x, cy: y, r: 6 });
    this.svg.setAttribute("aria-label", `Plane of learning rate and momentum: at this point the `
      + `slowest mode ${slow.regime === "monotone" ? "is monotone" : slow.regime}, with rate ${
        words(slow.rate, 3)} per step. Darker is faster.`);
  }
}
