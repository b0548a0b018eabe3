// The view of optlab/widgets.py: what a rule does on a landscape, drawn anew on every move.
// No equation stands here. OPTLAB, which goes before this text, holds those that
// optlab/javascript.py translates from Python; optlab/pictures.js, also before it, draws.

const HORIZON = 1.25; // the error's picture shows a quarter more steps than the budget
const WIDE = 840; // px: three pictures in a row; below, one over two
const NARROW = 500; // px: all in one column
const HEIGHTS = { wide: [280, 280, 280], medium: [230, 270, 270], narrow: [190, 200, 230] };
const GONE = 1e-6; // a rate below this is rounding
const MEASURED = 100; // steps over which a rule without modes has its rate measured
const NAMES = { lr: "Learning rate η", beta: "Momentum β" };
const HANDLES = ".noUi-handle, .ui-slider-handle"; // of ipywidgets 8, of ipywidgets 7

export const { rules, landscapes, radius, regime } = OPTLAB;

// ---- numbers ----

// Trace and determinant of one step on a mode, as in optlab/modes.py.
export function invariants(rule, lam, options) {
  if (!rule.states) return [rule.update(1, lam, options)[0], 0];
  const theta = rule.update(1, lam, 0, options);
  const v = rule.update(0, 0, 1, options);
  return [theta[0] + v[1], theta[0] * v[1] - v[0] * theta[1]];
}

// The path, as in optlab/descent.py; `kicks` has what noise adds to the gradient at each step.
export function descend(rule, scene, options, steps, kicks = []) {
  let point = scene.start;
  let memory = point.map(() => Array(rule.states).fill(0));
  const path = [point];
  const given = rule.fixed ? { lr: options.lr, ...rule.fixed } : options;
  if (rule.slot) given[rule.slot] = options.beta;
  for (let step = 1; step <= steps; step++) {
    const gradient = scene.gradient(...point);
    const kick = kicks[step - 1] ?? point.map(() => 0);
    const moved = point.map((theta, i) =>
      rule.update(theta, gradient[i] + kick[i], ...memory[i], { ...given, step }));
    point = moved.map((result) => result[0]);
    memory = moved.map((result) => result.slice(1));
    path.push(point);
  }
  return path;
}

// What is left of the start: of the distance on a quadratic, of the loss elsewhere.
export function remaining(scene, path) {
  const distance = (point) => Math.hypot(...point.map((x, i) => x - scene.minimum[i]));
  const loss = (point) => scene.value(...point) - scene.value(...scene.minimum);
  const left = path.map(scene.quadratic ? distance : loss);
  return left.map((value) => value / left[0]);
}

// The step from which on the error keeps to the goal; null when that is not within the budget.
export function reached(errors, goal, budget) {
  const since = errors.map((error) => error <= goal).lastIndexOf(false) + 1;
  return since <= budget ? since : null;
}

// The mode that decides in the long run: its rate, and how it moves. A rule that divides by what
// it remembers has no modes: what a run leaves stands for the rate.
export function slowest(rule, scene, options) {
  if (rule.fixed) {
    const left = remaining(scene, descend(rule, scene, options, MEASURED))[MEASURED];
    return { rate: left ** (1 / MEASURED), regime: left < 1 ? "" : "diverges" };
  }
  const modes = scene.curvature.map((lam) => invariants(rule, lam, options));
  const [trace, det] = modes.reduce((a, b) => (radius(...b) > radius(...a) ? b : a));
  return { rate: radius(trace, det), regime: regime(trace, det) };
}

// One curve for each mode of a quadratic: its coordinate's share of the start.
function modes(scene, path) {
  if (!scene.quadratic) return [];
  return scene.start.map((first, i) => {
    const unit = scene.minimum.map((x, j) => x + (i === j));
    const slow = scene.gradient(...unit)[i] === scene.curvature[0];
    const share = (point) => Math.abs((point[i] - scene.minimum[i]) / (first - scene.minimum[i]));
    return { kind: slow ? "slow" : "steep", axis: "xy"[i], values: path.map(share) };
  });
}

function measure(model) {
  const settings = model.get("settings");
  const [name, label, momentum] = settings.rules[model.get("chosen")];
  const rule = { ...rules[name], name, label, momentum };
  const scene = landscapes[settings.scene];
  const options = { lr: model.get("lr"), beta: model.get("beta") };
  const horizon = Math.ceil(settings.budget * HORIZON);
  const path = descend(rule, scene, options, horizon, settings.kicks);
  const errors = remaining(scene, path);
  const hit = reached(errors, settings.goal, settings.budget);
  const slow = slowest(rule, scene, options);
  return { settings, rule, scene, options, horizon, path, errors, hit, slow,
    curves: modes(scene, path) };
}

// ---- words ----

const capital = (text) => text[0].toUpperCase() + text.slice(1);

function sentence({ rule, scene, options, errors, settings }) {
  const error = errors[settings.budget];
  const what = scene.quadratic ? "error" : "loss";
  const beta = rule.momentum ? `, β = ${words(options.beta, 3)}` : "";
  const share = `${words(error)} ${error <= 1 ? "of" : "times"} its start`;
  const size = Number.isFinite(error) ? `is ${share}` : "has grown beyond all numbers";
  const said = `${capital(rule.label)}, η = ${words(options.lr, 3)}${beta}: after ${settings.budget} `
    + `steps the ${what} ${size}.`;
  if (rule.fixed) return said;
  const each = scene.curvature.map((lam, i) => {
    const pair = invariants(rule, lam, options);
    const rate = radius(...pair);
    const how = rate < GONE ? "gone at once" : `${regime(...pair)}, rate ${words(rate, 3)}`;
    return `${["slow", "steep"][i]} mode ${how}`;
  });
  const range = scene.curvature.map((lam) => words(lam, 3)).join(" and ");
  const proviso = scene.quadratic ? "" : `on a quadratic of curvatures ${range}: `;
  return `${said} ${capital(`${proviso}${each.join("; ")}`)}.`;
}

function verdict({ hit, settings }) {
  if (hit === null) return `Goal not reached in ${settings.budget} steps.`;
  return `Goal reached at step ${hit}.`;
}

// ---- the page ----

// The sliders are siblings of the view: name their handles, and say their values in words.
function nameHandles(box, { options, rule }) {
  for (const [name, label] of Object.entries(NAMES)) {
    const slider = box.querySelector(`.optlab-${name}`);
    if (!slider) continue;
    for (const handle of slider.querySelectorAll(HANDLES)) {
      handle.setAttribute("role", "slider");
      handle.setAttribute("aria-label", label);
      handle.setAttribute("aria-valuetext", words(options[name], 3));
    }
    slider.querySelector(".widget-readout")?.setAttribute("aria-label", `${label}, as a number`);
    slider.classList.toggle("optlab-idle", name === "beta" && !rule.momentum);
  }
  for (const button of box.querySelectorAll(".optlab-rule button")) {
    button.setAttribute("aria-pressed", String(button.classList.contains("mod-active")));
  }
}

// Pointing into the plane moves the sliders, to the nearest of their positions.
function steer(plane, model) {
  const nearest = (value, [low, high], positions, log) => {
    const turn = log ? Math.log10 : (x) => x;
    const share = (turn(value) - turn(low)) / (turn(high) - turn(low));
    const step = Math.round(Math.min(1, Math.max(0, share)) * positions) / positions;
    const place = turn(low) + step * (turn(high) - turn(low));
    return Number((log ? 10 ** place : place).toPrecision(12));
  };
  const follow = (event) => {
    if (!event.buttons) return;
    const { left, top } = plane.svg.getBoundingClientRect();
    const { lr, beta, positions, rules: choice } = model.get("settings");
    model.set("lr", nearest(plane.x.at(event.clientX - left), lr, positions.lr, true));
    if (choice[model.get("chosen")][2]) {
      model.set("beta", nearest(plane.y.at(event.clientY - top), beta, positions.beta, false));
    }
    model.save_changes();
  };
  plane.svg.classList.add("optlab-plane");
  plane.svg.addEventListener("pointerdown", follow);
  plane.svg.addEventListener("pointermove", follow);
}

function keys(caption, curves) {
  if (curves.length) make(caption, "span", { class: "key whole" }, "both");
  for (const { kind, axis } of curves) {
    caption.append(" ");
    make(caption, "span", { class: `key ${kind}` }, `${kind} mode ${axis}`);
  }
}

function pictures(panes, model) {
  const { scene, curves } = measure(model);
  const path = new PathPicture(panes, "Path");
  const error = new ErrorPicture(panes, scene.quadratic ? "Error" : "Loss");
  const plane = new PlanePicture(panes, "Plane: the bluer, the faster");
  keys(error.caption, curves);
  steer(plane, model);
  return [path, error, plane];
}

function render({ model, el }) {
  const { root, tell, guarded } = stage(el);
  const panes = make(root, "div", { class: "panes" });

  const drawn = guarded(() => pictures(panes, model))();
  if (drawn === null) return undefined;
  let width = 0; // of the pictures as they are; 0 before they are on the page

  const move = guarded(() => {
    const state = measure(model);
    tell(state.hit === null ? "open" : "reached", verdict(state), sentence(state));
    if (width) drawn.forEach((picture) => picture.move(state));
    setTimeout(() => { // the sliders set their own words after this
      const box = root.closest(".optlab-play");
      if (box) nameHandles(box, state);
    });
  });
  const lay = guarded(() => {
    width = root.clientWidth;
    if (!width) return;
    const layout = width >= WIDE ? "wide" : width >= NARROW ? "medium" : "narrow";
    panes.dataset.layout = layout;
    const state = measure(model);
    drawn.forEach((picture, i) => {
      picture.height = HEIGHTS[layout][i];
      picture.lay(state);
    });
    move();
  });
  const resized = new ResizeObserver(() => root.clientWidth !== width && lay());
  resized.observe(root);
  model.on("change:lr change:beta", move);
  model.on("change:chosen", lay);
  move();
  return () => {
    resized.disconnect();
    model.off("change:lr change:beta", move);
    model.off("change:chosen", lay);
  };
}

export default { render };
