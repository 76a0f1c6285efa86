// Draw each chart when it scrolls into view, and set its signals from the controls of its figure.
const looks = JSON.parse(document.getElementById("looks").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const drawn = new Map(); // from the element of a chart to its view

function controls(figure) {
  return [...figure.querySelectorAll("[data-signal]")].map((control) => [
    control.dataset.signal,
    control.type === "range" ? Number(control.value) : control.value,
  ]);
}

async function draw(element) {
  const spec = JSON.parse(document.getElementById(element.dataset.spec).textContent);
  const config = dark.matches ? looks.dark : looks.light;
  const figure = element.closest("figure");
  drawn.get(element)?.finalize();
  const { view } = await vegaEmbed(element, spec, { actions: false, renderer: "svg", config, ast: true });
  drawn.set(element, view);
  for (const [signal, value] of controls(figure)) view.signal(signal, value);
  await view.runAsync();
  element.dataset.drawn = "yes";
}

const seen = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      seen.unobserve(entry.target);
      draw(entry.target);
    }
  },
  { rootMargin: "600px" },
);
document.querySelectorAll(".chart").forEach((element) => seen.observe(element));
dark.addEventListener("change", () => [...drawn.keys()].forEach(draw));
window.addEventListener("beforeprint", () => document.querySelectorAll(".chart:not([data-drawn])").forEach(draw));

document.querySelectorAll("[data-signal]").forEach((control) => {
  const figure = control.closest("figure");
  const output = control.parentElement.querySelector("output");
  const choices = control.dataset.choices ? JSON.parse(control.dataset.choices) : null;
  const set = () => {
    if (output) output.textContent = choices ? choices[Number(control.value)] : control.value;
    figure.querySelectorAll(".chart").forEach((element) => {
      const view = drawn.get(element);
      if (!view) return;
      for (const [signal, value] of controls(figure)) view.signal(signal, value);
      view.runAsync();
    });
  };
  control.addEventListener("input", set);
  set();
});
