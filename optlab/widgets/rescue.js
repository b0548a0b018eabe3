// The view of optlab/widgets/rescue.py: a histogram that the slider moves under a format's ends.
// The shares it tells are Python's; optlab/widgets/drawing.js, before this text, draws.

const RANGE = [-60, 40]; // of the exponents
const TALL = 260; // px
const EDGES = ["smallest", "normal", "largest"];

const percent = (share) => (share === 0 ? "none" : share < 5e-4 ? "under 0.1 %"
  : `${(100 * share).toFixed(1)} %`);

export function judge(settings, chosen, power) {
  const kind = settings.formats[chosen];
  const [lost, subnormal, overflow] = ["lost", "subnormal", "overflow"].map((k) => kind[k][power]);
  return { kind, lost, subnormal, overflow, reached: lost <= settings.goal && overflow === 0 };
}

// Where a value of this exponent ends up: an entry of the bars' classes.
export function fate(kind, exponent) {
  if (exponent < kind.smallest - 1) return "lost";
  if (exponent < kind.normal) return "subnormal";
  return exponent < Math.ceil(kind.largest) ? "kept" : "beyond";
}

class Bars extends Picture {
  draw(settings, { kind }, power) {
    const top = 1.1 * Math.max(...settings.bins.map(([, share]) => share));
    const label = "exponent of the scaled gradient";
    this.frame({ range: RANGE, label }, { range: [0, top], label: "share" });
    for (const [exponent, share] of settings.bins) {
      const [x, y] = this.place([exponent + power, share]);
      const width = this.x(1) - this.x(0);
      make(this.pen, "rect", { x, y, width: 0.85 * width, height: this.y(0) - y,
        class: `bar ${fate(kind, exponent + power)}` });
    }
    const names = { smallest: "smallest", normal: "normal from", largest: "largest" };
    EDGES.forEach((edge, i) => {
      const x = this.x(kind[edge]);
      make(this.paper, "path", { class: "budget", d: `M${x} ${this.box.top}v${this.box.height}` });
      const row = this.box.top + 16 + (i === 1 ? 16 : 0);
      const left = edge === "smallest";
      this.label(this.pen, x + (left ? -5 : 5), row, names[edge], left ? "end" : "start", "halo");
    });
    this.svg.setAttribute("aria-label", `Histogram of gradients by exponent, scaled by 2 to the `
      + `${power}, over the range of ${kind.name}.`);
  }
}

function render({ model, el }) {
  const { root, conclude, guarded } = stage(el);
  const panes = make(root, "div", { class: "panes" });
  const bars = new Bars(panes, "Gradients by their exponents: orange is lost or too large, grey has fewer "
    + "bits, blue is kept.", TALL);
  let width = 0;

  const move = guarded(() => {
    const settings = model.get("settings");
    const power = model.get("power");
    const state = judge(settings, model.get("chosen"), power);
    conclude(state.reached, `Scale 2${superscript(power)}. Lost to zero: ${percent(state.lost)}. `
      + `Subnormal, with fewer bits: ${percent(state.subnormal)}. `
      + `Too large: ${percent(state.overflow)}.`);
    if (width) bars.draw(settings, state, power);
    setTimeout(() => {
      for (const handle of root.closest(".optlab-play")
        ?.querySelectorAll(".optlab-lr .noUi-handle, .optlab-lr .ui-slider-handle") ?? []) {
        handle.setAttribute("role", "slider");
        handle.setAttribute("aria-label", "Power of two of the loss scale");
        handle.setAttribute("aria-valuetext", `2 to the ${power}`);
      }
    });
  });
  const lay = () => {
    width = root.clientWidth;
    move();
  };
  const resized = new ResizeObserver(() => root.clientWidth !== width && lay());
  resized.observe(root);
  model.on("change:power change:chosen", move);
  lay();
  return () => {
    resized.disconnect();
    model.off("change:power change:chosen", move);
  };
}

export default { render };
