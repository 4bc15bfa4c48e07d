// Which taps are answers: those that begin when this page has been on the screen for as long as reading it takes.
// Loaded before the page is drawn (no module, no defer), so that no tap comes before it. A form with data-at-once
// needs no reading, one with data-read-first needs all of it: before that a tap leads on in the text. The server knows
// when it sent the page and refuses what is too early even by that.
const READ_MS = Number(document.documentElement.dataset.readMs);
let drawn = Infinity; // when this page was first on the screen; by performance.now(), as the events' own times
let press = null; // the finger that went down on this page last, and when
let stroke = null; // of Enter or the space bar, while it is held down: when it began
let counts = false; // whether the last click does

function appear() {
  delete document.documentElement.dataset.answers;
  drawn = Infinity;
  requestAnimationFrame(() => requestAnimationFrame(() => {
    drawn = performance.now();
    setTimeout(say, READ_MS);
  }));
}

// For the eye, which sees the answers pale until then, and for whoever waits for it.
function say() {
  if (performance.now() >= drawn + READ_MS) document.documentElement.dataset.answers = "count";
  else if (drawn < Infinity) setTimeout(say, drawn + READ_MS - performance.now());
}

// Whether the end of the text is in sight, by kiosk.js: once is enough. Who comes from there reads the answers anew.
function tellRead(end) {
  const facts = document.documentElement.dataset;
  const before = facts.read;
  if (before === "yes") return;
  facts.read = end ? "yes" : "no";
  if (before === "no" && end && document.querySelector("[data-read-first]")) appear();
}

document.addEventListener("readystatechange", appear, { once: true }); // all of it is read, and may be drawn
// What lay under a dialog is before the patient only now.
document.addEventListener("close", appear, true);

addEventListener("pointerdown", (event) => (press = { id: event.pointerId, at: event.timeStamp }), true);

// A key held down since the page before says nothing here: its first stroke was not on this page.
addEventListener("keydown", (event) => {
  if (event.key !== "Enter" && event.key !== " ") return;
  if (event.repeat) event.preventDefault();
  else stroke = { at: event.timeStamp };
}, true);
addEventListener("keyup", () => {
  const ended = stroke;
  setTimeout(() => ended === stroke && (stroke = null)); // the space bar clicks after this event
}, true);

// A click without a pointer comes from a key, or from a switch or a screen reader, which press nothing.
function began(click) {
  if (!click.pointerType) return stroke?.at ?? click.timeStamp;
  return press?.id === click.pointerId ? press.at : -Infinity;
}

addEventListener("click", (event) => (counts = began(event) >= drawn + READ_MS), true);

addEventListener("submit", (event) => {
  const form = event.target;
  const again = "sent" in form.dataset; // a second tap on a button sends nothing
  if (again || !(counts || "atOnce" in form.dataset)) {
    event.preventDefault();
    event.stopImmediatePropagation();
  } else if ("readFirst" in form.dataset && document.documentElement.dataset.read !== "yes") {
    event.preventDefault();
    event.stopImmediatePropagation();
    document.querySelector("[data-more] button").click();
  } else form.dataset.sent = "yes";
}, true);
