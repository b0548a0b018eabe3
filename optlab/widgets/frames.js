// The view of optlab/widgets/frames.py: one of several figures, and what is said of it.

const HANDLES = ".noUi-handle, .ui-slider-handle"; // of ipywidgets 8, of ipywidgets 7

function render({ model, el }) {
  const { root, conclude, guarded } = stage(el);
  const figure = make(el, "div"); // not in the view, whose style is for pictures of its own

  const move = guarded(() => {
    const frame = model.get("frames")[model.get("at")];
    conclude(frame.reached, frame.says);
    figure.innerHTML = frame.figure;
    setTimeout(() => { // the slider sets its own words after this
      for (const handle of root.closest(".optlab-play")?.querySelectorAll(HANDLES) ?? []) {
        handle.setAttribute("role", "slider");
        handle.setAttribute("aria-label", model.get("label"));
        handle.setAttribute("aria-valuetext", frame.at);
      }
    });
  });
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
