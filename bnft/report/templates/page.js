// Draws each chart from its specification when it comes into sight, and sets its signals from the controls beside it.
const looks = JSON.parse(document.getElementById("looks").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const drawn = new Map(); // element of a chart -> its view

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
  const said = control.parentElement.querySelector("output");
  const told = control.dataset.told ? JSON.parse(control.dataset.told) : null;
  const set = () => {
    if (said) said.textContent = told ? told[Number(control.value)] : control.value;
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
