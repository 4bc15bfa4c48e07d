// Going to another page only once the kiosk's own server answers: while it starts again or hangs, the patient would
// be left before an error page of the browser, from which nothing leads on. The first way that is taken counts.
// What is sent is sent from here for the same reason: the server may end while it is at work on it.
const ASK_MS = 3000;
const SEND_MS = 95000; // by then the watchdog has ended a server that hangs
const AGAIN_MS = 500;
const PATIENCE_MS = 700; // after a tap a word, until the page is there that it leads to
let going = false;
let sent = null; // the answer that the kiosk is at work on

export const isGoing = () => going;

async function answers() {
  try {
    return (await fetch("/healthz", { cache: "no-store", signal: AbortSignal.timeout(ASK_MS) })).ok;
  } catch {
    return false;
  }
}

function sayOneMoment() {
  const word = document.getElementById("one-moment");
  if (word.dataset.said) return;
  document.querySelector("dialog[open]")?.close();
  for (const other of document.body.children) other.inert = other !== word;
  word.append(word.querySelector("template").content.cloneNode(true));
  word.dataset.said = "yes";
  sayMeanwhile();
}

// What to do as long as the kiosk is at work on one answer is said as long as it is that.
function sayMeanwhile() {
  for (const said of document.querySelectorAll("#one-moment [data-while]")) said.hidden = said.dataset.while !== sent;
}

// Whether it answered when it was first asked: what was chosen before a longer wait may be of long ago.
async function reached() {
  going = true;
  setTimeout(sayOneMoment, PATIENCE_MS);
  const atOnce = await answers();
  for (let there = atOnce; !there; there = await answers()) {
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
  return atOnce;
}

export async function go(address) {
  if (going) return;
  await reached();
  location.assign(address);
}

// After whatever else listens: a tap that does not count is prevented by then.
addEventListener("submit", async (event) => {
  const { target: form, submitter } = event;
  if (event.defaultPrevented || form.method === "dialog") return;
  event.preventDefault();
  if (going) return;
  const atOnce = await reached();
  // It decides something, and comes late: asked anew.
  const next = form.elements.showing && !atOnce ? null : await send(form, submitter);
  location.assign(next ?? asked());
});

// Where the answer leads; null where none came.
async function send(form, submitter) {
  sent = form.elements.answer?.value;
  sayMeanwhile();
  try {
    const answer = await fetch(form.action, {
      method: "POST",
      headers: { "X-Way-On": "yes" },
      body: new URLSearchParams(new FormData(form, submitter)),
      signal: AbortSignal.timeout(SEND_MS),
    });
    return (await answer.json()).next;
  } catch {
    sent = null;
    sayMeanwhile();
    await reached();
    return null;
  }
}

// A page that came of an answer is not there to be asked for again.
const asked = () => ("answersOne" in document.body.dataset ? "/" : location.href);

addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  if (!link || event.defaultPrevented || link.getAttribute("href").startsWith("#")) return;
  event.preventDefault();
  go(link.href);
});
