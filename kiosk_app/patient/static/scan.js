// The scan at work: asks how far it is, says so, then goes on to the next page.
import { go } from "./reach.js";
import { say } from "./speech.js";

const PAUSE_MS = 400;
const ANSWER_MS = 5000;
const SPOKEN_MS = 1600; // a chime ends with its page, so the page waits for it
const FAILURES = 5; // nobody answers: the application has ended, and with it every light
const sentence = document.querySelector("[data-sentence]");
const way = document.querySelector("[data-way]");
const { during, after, closedAtMost } = document.body.dataset;
const begun = performance.now();
let said = document.body.dataset.say;
let failures = 0;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function speak(name) {
  said = name;
  say(name);
  await pause(SPOKEN_MS);
}

async function ask() {
  const answer = await fetch("/scan/progress", { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
  const { done, of, sentence: text, say: line, next } = await answer.json().catch(() => ({}));
  failures = 0;
  if (of === undefined && !next) return true; // it cannot say how far the scan is; UV may still come
  if (text && !next && text !== sentence.textContent) sentence.textContent = text;
  way.setAttribute("stroke-dasharray", `${of ? Math.round((100 * done) / of) : 100} 100`);
  if (next) {
    await tellClosedEyes();
    go(next);
    return false;
  }
  if (line !== said && line !== during) await speak(line);
  return true;
}

async function tellClosedEyes() {
  if (said === during) await speak(after);
}

async function run() {
  for (;;) {
    try {
      if (!(await ask())) return;
    } catch (error) {
      // The kiosk is starting again; it will say where to go. One that hangs may still light a lamp.
      if (error.name !== "TimeoutError") failures += 1;
    }
    const late = performance.now() - begun > closedAtMost * 1000;
    if (late || failures >= FAILURES) await tellClosedEyes();
    await pause(PAUSE_MS);
  }
}

if (document.body.dataset.state === "working") run();
