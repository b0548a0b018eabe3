// The view of optlab/widgets/frames.py: one of several figures, and what is said of it.

const HANDLES = ".noUi-handle, .ui-slider-handle"; // of ipywidgets 8, of ipywidgets 7

function make(parent, tag, attributes = {}) {
  const node = parent.appendChild(document.createElement(tag));
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function render({ model, el }) {
  const root = make(el, "div", { class: "optlab-view" });
  const status = make(root, "div", { class: "status", role: "status", "aria-live": "polite" });
  const outcome = make(status, "strong");
  status.append(" ");
  const detail = make(status, "span");
  const figure = make(el, "div"); // not in the view, whose style is for pictures of its own

  const move = () => {
    const frame = model.get("frames")[model.get("at")];
    status.dataset.state = frame.reached ? "reached" : "open";
    outcome.textContent = frame.reached ? "Goal reached." : "Goal not reached.";
    detail.textContent = frame.says;
    figure.innerHTML = frame.figure;
    setTimeout(() => { // the slider sets its own words after this
      for (const handle of root.closest(".optlab-play")?.querySelectorAll(HANDLES) ?? []) {
        handle.setAttribute("role", "slider");
        handle.setAttribute("aria-label", model.get("label"));
        handle.setAttribute("aria-valuetext", frame.at);
      }
    });
  };
  model.on("change:at", move);
  const resized = new ResizeObserver(move); // the slider may come later than this
  resized.observe(root);
  move();
  return () => {
    resized.disconnect();
    model.off("change:at", move);
  };
}

export default { render };
