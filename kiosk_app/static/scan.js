// The scan at work: asks how far it is, says so, then goes on to the next page.
import { chime } from "./kiosk.js";

const PAUSE_MS = 400;
const sentence = document.querySelector("[data-sentence]");
const way = document.querySelector("[data-way]");
const hold = document.querySelector("[data-hold]");
let pictures = true;

async function ask() {
  const answer = await fetch("/scan/progress", { cache: "no-store" });
  const { stage, done, of, sentence: text, next } = await answer.json();
  if (next) {
    location.assign(next);
    return false;
  }
  if (text !== sentence.textContent) sentence.textContent = text;
  if (of) way.setAttribute("stroke-dasharray", `${Math.round((100 * done) / of)} 100`);
  if (pictures && !["starting", "pictures"].includes(stage)) {
    pictures = false;
    hold.hidden = true;
    way.setAttribute("stroke-dasharray", "100 100");
    chime();
  }
  return true;
}

async function run() {
  for (;;) {
    try {
      if (!(await ask())) return;
    } catch {
      // The kiosk is starting again; it will say where to go.
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

if (document.body.dataset.state === "working") run();
