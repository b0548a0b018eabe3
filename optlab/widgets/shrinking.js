// The view of optlab/widgets/shrinking.py: what ridge and early stopping leave of each mode. SHARES,
// which goes before this text, holds both equations.

const MODES = [1e-3, 1e2]; // curvatures that the picture shows
const POINTS = 400;
const TALL = 280; // px
const FIRM = { decay: "Decay λ", steps: "Steps t" };

export const { ridge_share, stopping_share } = SHARES;

// Both curves, and where they are furthest apart.
export function compare(lr, decay, steps) {
  const rows = Array.from({ length: POINTS + 1 }, (_, i) => {
    const lam = MODES[0] * (MODES[1] / MODES[0]) ** (i / POINTS);
    return { lam, ridge: ridge_share(lam, decay), stopped: stopping_share(lam, lr, steps) };
  });
  const gaps = rows.map(({ ridge, stopped }) => Math.abs(ridge - stopped));
  const gap = Math.max(...gaps);
  return { rows, gap, at: rows[gaps.indexOf(gap)] };
}

function nameSliders(box, values) {
  for (const [name, label] of Object.entries(FIRM)) {
    const slider = box.querySelector(`.optlab-${name}`);
    for (const handle of slider?.querySelectorAll(".noUi-handle, .ui-slider-handle") ?? []) {
      handle.setAttribute("role", "slider");
      handle.setAttribute("aria-label", label);
      handle.setAttribute("aria-valuetext", words(values[name], 3));
    }
    slider?.querySelector(".widget-readout")?.setAttribute("aria-label", `${label}, as a number`);
  }
}

function render({ model, el }) {
  const { goal, lr } = model.get("settings");
  const { root, conclude, guarded } = stage(el);
  const picture = new Picture(make(root, "div", { class: "panes" }), "Share left of a mode: ", TALL);
  make(picture.caption, "span", { class: "key slow" }, "ridge");
  picture.caption.append(" ");
  make(picture.caption, "span", { class: "key steep" }, "early stopping");
  let width = 0; // 0 before it is on the page

  const move = guarded(() => {
    const values = { decay: model.get("decay"), steps: Math.round(model.get("steps")) };
    const { rows, gap, at } = compare(lr, values.decay, values.steps);
    const said = `Decay λ = ${words(values.decay, 3)}, ${words(values.steps, 4)} steps of η = ${
      words(lr)}: the curves are at most ${words(gap, 3)} apart, at curvature ${words(at.lam)}.`;
    conclude(gap <= goal, `${said} (Goal: ${words(goal)}.)`);
    picture.svg.setAttribute("aria-label", `Share left against curvature. ${said}`);
    if (width) {
      picture.pen.replaceChildren();
      for (const [name, kind] of [["ridge", "slow"], ["stopped", "steep"]]) {
        make(picture.pen, "path", { class: kind,
          d: line(rows.map((row) => picture.place([row.lam, row[name]]))) });
      }
      const [x, low] = picture.place([at.lam, at.ridge]);
      const [, high] = picture.place([at.lam, at.stopped]);
      make(picture.pen, "path", { class: "border", d: `M${x} ${low}V${high}` });
    }
    setTimeout(() => { // the sliders set their own words after this
      const box = root.closest(".optlab-play");
      if (box) nameSliders(box, values);
    });
  });
  const resized = new ResizeObserver(guarded(() => {
    if (root.clientWidth === width) return;
    width = root.clientWidth;
    if (!width) return;
    picture.frame({ range: MODES, log: true, label: "curvature" },
      { range: [0, 1.02], label: "share left" });
    move();
  }));
  resized.observe(root);
  model.on("change:decay change:steps", move);
  move();
  return () => {
    resized.disconnect();
    model.off("change:decay change:steps", move);
  };
}

export default { render };
