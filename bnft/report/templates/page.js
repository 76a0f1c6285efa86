// Draw the charts, those in view first, and set their signals from the controls of their figure.
const look = JSON.parse(document.getElementById("look").textContent);
const views = new Map(); // from the element of a chart to its view

function signals(figure) {
  const hidden = [...figure.querySelectorAll("[data-row]")].filter((box) => !box.checked).map((box) => box.dataset.row);
  const chosen = [...figure.querySelectorAll("[data-signal]")].map((control) => [
    control.dataset.signal,
    control.type === "range" ? Number(control.value) : control.value,
  ]);
  return [["hidden", hidden], ...chosen];
}

async function draw(element) {
  if (element.dataset.begun) return;
  element.dataset.begun = "yes";
  const spec = JSON.parse(document.getElementById(element.dataset.spec).textContent);
  const quiet = 1; // errors only: a chart of which all rows are hidden is not worth a warning
  const options = { actions: false, renderer: "svg", config: look, ast: true, logLevel: quiet };
  const { view } = await vegaEmbed(element, spec, options);
  views.set(element, view);
  await update(element);
  element.dataset.drawn = "yes";
}

async function update(element) {
  const view = views.get(element);
  for (const [signal, value] of signals(element.closest("figure"))) view.signal(signal, value);
  await view.runAsync();
  await fit(element);
}

// Vega-Lite fits a chart into its container, but not one of several lanes.
async function fit(element) {
  const view = views.get(element);
  if (!("lanes" in element.dataset)) return;
  const svg = element.querySelector("svg");
  const width = view.signal("child_width");
  const room = Math.floor(element.clientWidth - (svg.getAttribute("width") - width)) - 1;
  if (room > 0 && Math.abs(room - width) > 1) await view.signal("child_width", room).resize().runAsync();
}

function describe(figure) {
  const state = figure.querySelector(".state");
  if (!state) return;
  state.textContent = [...figure.querySelectorAll("[data-signal]")]
    .map((control) => JSON.parse(control.dataset.texts)[control.type === "range" ? control.value : control.selectedIndex])
    .join(", ");
}

document.querySelectorAll("figure").forEach((figure) => {
  figure.addEventListener("input", () => {
    describe(figure);
    figure.querySelectorAll(".chart[data-drawn]").forEach(update);
  });
  describe(figure); // a browser can keep the choices of a page that is loaded again
});
window.addEventListener("resize", () => document.querySelectorAll(".chart[data-drawn]").forEach(fit));

const charts = [...document.querySelectorAll(".chart")];
const seen = new IntersectionObserver(
  (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => draw(entry.target)),
  { rootMargin: "600px" },
);
charts.forEach((element) => seen.observe(element));
// The others follow when the browser has time: a page must be complete before it is printed.
const idle = window.requestIdleCallback ?? ((call) => setTimeout(call, 50));
(function rest() {
  const next = charts.find((element) => !element.dataset.begun);
  if (next) idle(() => draw(next).then(rest));
})();
window.addEventListener("beforeprint", () => charts.forEach(draw));
