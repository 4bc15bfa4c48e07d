// The live preview: one picture after another onto a canvas, with the kiosk's guidance beneath it.
import { go } from "./reach.js";

const box = document.querySelector("[data-preview]");
const canvas = box.querySelector("canvas");
const guidance = document.querySelector("[data-guidance]");
const sentences = new Map();
for (const line of document.querySelector("[data-sentences]").content.children) {
  sentences.set(line.dataset.code, line.textContent);
}

const PAUSE_MS = 120;
const CALM_MS = 700; // a sentence stays this long, so that it can be read
const FAILURES = 4;
const ANSWER_MS = 10000;
// The patient goes on: the camera is needed for something else now.
const leaving = new AbortController();
document.addEventListener("submit", () => leaving.abort());
let failures = 0;
let said = -Infinity;

async function show() {
  const signal = AbortSignal.any([leaving.signal, AbortSignal.timeout(ANSWER_MS)]);
  const answer = await fetch(box.dataset.preview || "/preview", { cache: "no-store", signal });
  if (answer.status === 409 || answer.status === 410) {
    go("/");
    return false;
  }
  if (answer.status === 503 && (await answer.json()).reason === "deadline") failures = FAILURES; // it hangs
  if (!answer.ok) throw new Error(answer.status);
  const picture = await createImageBitmap(await answer.blob());
  canvas.width = picture.width;
  canvas.height = picture.height;
  canvas.getContext("2d").drawImage(picture, 0, 0);
  picture.close();
  const code = answer.headers.get("X-Guidance");
  box.toggleAttribute("data-good", code === "hold_still");
  const sentence = sentences.get(code) ?? "";
  if (sentence !== guidance.textContent && performance.now() - said > CALM_MS) {
    guidance.textContent = sentence;
    said = performance.now();
  }
  return true;
}

async function run() {
  for (;;) {
    try {
      if (!(await show())) return;
      failures = 0;
    } catch {
      if (leaving.signal.aborted) return;
      failures += 1;
      if (failures >= FAILURES) {
        go(box.dataset.trouble);
        return;
      }
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS * (1 + 4 * failures)));
  }
}

run();
