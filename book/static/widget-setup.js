// Runs before RequireJS and the widget manager, on pages that hold widgets.

// RequireJS takes its settings from this global: anywidget is served with the book.
window.require = {
  paths: { anywidget: new URL("vendor/anywidget", document.currentScript.src).href },
};

// The widget manager asks MathJax 2 to typeset descriptions.  The book has MathJax 3, and its
// widgets write Unicode, so there is nothing to do but to be there.
window.addEventListener(
  "load",
  () => {
    if (window.MathJax && !window.MathJax.Hub) window.MathJax.Hub = { Queue() {} };
  },
  { capture: true },
);
