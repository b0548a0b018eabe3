// The three pictures of optlab/widgets.js: the path, the error, the plane. Each has a part that
// `lay` draws when its size or its rule changes, and a part that `move` draws on every move.

const LOST = 3e3; // px: a path so far out is not followed further
const CONTOURS = 9;
const FINE_CELLS = [72, 54]; // in the plane, where regimes come to a tip
const HIGHEST_ERROR = 10;
const DECADES_BELOW_GOAL = 2;
const FAST = [0, 114, 178]; // blue, by its opacity: it reads on light and on dark paper
const HATCH = [128, 128, 128, 80];
const PIXELS = 2; // of the screen, per pixel of the plane's colours
const COARSE = 6; // the same where each colour is a run

class PathPicture extends Picture {
  lay({ scene }) {
    this.flat = scene.start.length === 1;
    if (this.flat) this.graph(scene);
    else this.contours(scene);
    const spot = (point) => this.place(this.flat ? [point[0], scene.value(...point)] : point);
    const [x, y] = spot(scene.minimum);
    make(this.paper, "path", { class: "minimum", d: `M${x - 5} ${y}h10M${x} ${y - 5}v10` });
    this.label(this.paper, x, y + 19, "minimum", "middle", "halo");
    const [left, top] = spot(scene.start);
    const before = left > this.box.left + this.box.width / 2;
    this.label(this.paper, left + (before ? -8 : 8), top - 7, "start", before ? "end" : "start",
      "halo");
  }

  graph({ value, view: [[low, high]] }) {
    const points = Array.from({ length: 201 }, (_, i) => low + ((high - low) * i) / 200)
      .map((x) => [x, value(x)]);
    const top = Math.max(...points.map((point) => point[1]));
    this.frame({ range: [low, high], label: "x" }, { range: [-0.2 * top, top], label: "f(x)" });
    make(this.paper, "path", { class: "contour", d: line(points.map((p) => this.place(p))) });
  }

  // Levels at equal steps of the square root of the height's rank: even to the eye on a bowl.
  contours(scene) {
    this.frame({ range: scene.view[0], label: "x" }, { range: scene.view[1], label: "y" });
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
    const lost = places.findIndex(([x, y]) => Math.abs(x) > LOST || Math.abs(y) > LOST);
    if (lost >= 0) places.length = lost + 1;
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
    const spot = hit === null ? [] : [this.place([hit, errors[hit]])];
    make(this.pen, "path", { class: "hit", d: dots(spot) });
    const [what, left] = [scene.quadratic ? "Error" : "Loss", words(errors[settings.budget])];
    this.svg.setAttribute("aria-label", `${what} against step on a log scale: ${left} of its start `
      + `after ${settings.budget} steps.`);
  }
}

class PlanePicture extends Picture {
  lay(state) {
    const { settings, rule } = state;
    this.frame({ range: settings.lr, log: true, label: "learning rate η" },
      { range: settings.beta, label: rule.momentum ? "momentum β" : "" });
    this.at = (px, py) => slowest(rule, state.scene, { lr: this.x.at(px), beta: this.y.at(py) });
    this.colours(rule.fixed ? COARSE : PIXELS);
    for (const kind of this.regions()) {
      make(this.paper, "path", { class: "border",
        d: outline(this.box, (px, py) => this.at(px, py).regime === kind, FINE_CELLS) });
    }
  }

  // Blue by speed against the best rate in the plane, hatched where the run diverges.
  colours(pixels) {
    const [columns, rows] = [this.box.width, this.box.height].map((n) => Math.floor(n / pixels));
    const cells = Array.from({ length: columns * rows }, (_, i) => this.at(
      this.box.left + (this.box.width * ((i % columns) + 0.5)) / columns,
      this.box.top + (this.box.height * (Math.floor(i / columns) + 0.5)) / rows).rate);
    const best = Math.min(...cells.filter((rate) => rate > 0));
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width: columns, height: rows });
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
      const [half, tall] = [kind.length * 4 + 2, 9]; // px: half the name's width, and its height
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
        words(slow.rate, 3)} per step. The bluer, the faster.`);
  }
}
