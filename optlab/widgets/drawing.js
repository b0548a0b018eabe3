// What the pictures of optlab/pictures.js are drawn with: elements, scales, outlines, frames.
// Text keeps its size on every screen, for a picture is drawn in the pixels that it has.

const SVG = "http://www.w3.org/2000/svg";
const FAR = 1e4; // px: browsers draw no coordinates as large as a diverging run's
const MARGIN = { left: 50, right: 16, top: 12, bottom: 40 };
const CELLS = [48, 32]; // of the grid on which a boundary is looked for
const BISECTIONS = 7; // and how often each crossing is then halved

export function words(value, digits = 2) {
  if (!Number.isFinite(value)) return "beyond all numbers";
  const size = Math.abs(value);
  if (value === 0 || (size >= 1e-3 && size < 1e4)) {
    return String(Number(value.toPrecision(digits))).replace("-", "−");
  }
  const [mantissa, power] = value.toExponential(digits - 1).split("e");
  const factor = Number(mantissa) === 1 ? "" : `${Number(mantissa)}\u00a0×\u00a0`;
  return `${factor}10${superscript(Number(power))}`.replace("-", "−");
}

function superscript(power) {
  return [...String(power)].map((sign) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(sign)]).join("");
}

function make(parent, tag, attributes = {}, text = null) {
  const svg = tag === "svg" || parent.namespaceURI === SVG;
  const node = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== null) node.textContent = text;
  parent.append(node);
  return node;
}

// What every view begins with: its element, a way to tell the reader how things stand, and one to
// run what may fail. An error stands where the result would stand, and goes to the console too.
function stage(el) {
  const root = make(el, "div", { class: "optlab-view" });
  const status = make(root, "div", { class: "status", role: "status", "aria-live": "polite" });
  const outcome = make(status, "strong");
  status.append(" ");
  const detail = make(status, "span");
  const tell = (state, verdict, sentence) => {
    status.dataset.state = state;
    outcome.textContent = verdict;
    detail.textContent = sentence;
  };
  const conclude = (reached, sentence) => tell(
    reached ? "reached" : "open", reached ? "Goal reached." : "Goal not reached.", sentence);
  const guarded = (action) => () => {
    try {
      return action();
    } catch (error) {
      tell("error", "The picture could not be drawn.", String(error));
      reportError(error);
      return null;
    }
  };
  return { root, tell, conclude, guarded };
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

// Round values for the labels of an axis that has room for so many.
function ticks({ low, high, log }, room) {
  const powers = Array.from({ length: 40 }, (_, i) => 10 ** (i - 20));
  const within = (values) => values.filter((x) => x > low / 1.0001 && x < high * 1.0001);
  if (log) {
    const fine = within(powers.flatMap((power) => [power, 2 * power, 5 * power]));
    if (fine.length >= 3 && fine.length <= room + 1) return fine;
    const coarse = within(powers).reverse();
    const every = Math.ceil(coarse.length / room);
    if (coarse.length >= 2) return coarse.filter((_, i) => i % every === 0);
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
    this.svg.setAttribute("width", width);
    this.svg.setAttribute("height", this.height);
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
      this.label(this.svg, this.x(value), floor + 18, tickWords(value, this.x), "middle");
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
