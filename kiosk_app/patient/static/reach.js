// Going to another page only once the kiosk's own server answers: while it starts again or hangs, the patient would
// be left before an error page of the browser, from which nothing leads on. The first way that is taken counts.
const ASK_MS = 3000;
const AGAIN_MS = 500;
const PATIENCE_MS = 700; // after a tap to which nothing happens, a word
let going = false;

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
  document.querySelector("dialog[open]")?.close();
  for (const other of document.body.children) other.inert = other !== word;
  word.append(word.querySelector("template").content.cloneNode(true));
  word.dataset.said = "yes";
}

// Whether it answered when it was first asked: what was chosen before a longer wait may be of long ago.
async function reached() {
  going = true;
  const late = setTimeout(sayOneMoment, PATIENCE_MS);
  const atOnce = await answers();
  for (let there = atOnce; !there; there = await answers()) {
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
  clearTimeout(late);
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
  if (form.elements.showing && !atOnce) {
    // It decides something: asked anew. A page that came of an answer, asked for again, would send that again.
    location.assign("answersOne" in document.body.dataset ? "/" : location.href);
    return;
  }
  if (submitter?.name) {
    const chosen = Object.assign(document.createElement("input"), { type: "hidden" });
    Object.assign(chosen, { name: submitter.name, value: submitter.value });
    form.append(chosen);
  }
  form.submit();
});

addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  if (!link || event.defaultPrevented || link.getAttribute("href").startsWith("#")) return;
  event.preventDefault();
  go(link.href);
});
