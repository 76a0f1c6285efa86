// Ask every two seconds whether there is a newer page, and load it. Scroll position and controls are kept.
const liveKept = "bnft-live";
const liveControls = () => [...document.querySelectorAll("figure [data-signal], details, figure input")];

function liveState() {
  return liveControls().map((one) => (one.tagName === "DETAILS" ? one.open : one.type === "checkbox" ? one.checked : one.value));
}

const liveBefore = JSON.parse(sessionStorage.getItem(liveKept) ?? "null");
sessionStorage.removeItem(liveKept);
if (liveBefore && liveBefore.state.length === liveControls().length) {
  liveControls().forEach((one, place) => {
    const value = liveBefore.state[place];
    if (one.tagName === "DETAILS") one.open = value;
    else if (one.type === "checkbox") one.checked = value;
    else one.value = value;
    one.dispatchEvent(new Event("input"));
  });
}
if (liveBefore) window.scrollTo(0, liveBefore.scroll);

async function liveLook() {
  const note = document.getElementById("live-note");
  try {
    const found = await (await fetch("version", { cache: "no-store" })).text();
    note.textContent = "";
    if (found !== document.body.dataset.version) {
      sessionStorage.setItem(liveKept, JSON.stringify({ state: liveState(), scroll: window.scrollY }));
      location.reload();
      return;
    }
  } catch {
    note.textContent = "The server does not answer: this page shows the last state.";
  }
  setTimeout(liveLook, 2000);
}
setTimeout(liveLook, 2000);
