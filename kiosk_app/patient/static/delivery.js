// How far the measurements have come: asks while the page is open, since the clinic's receipt may still come.
const PAUSE_MS = 1000;
const ANSWER_MS = 5000;
const line = document.querySelector("[data-delivery]");
const sentences = new Map();
for (const one of document.querySelector("[data-deliveries]")?.content.children ?? []) {
  sentences.set(one.dataset.code, one.textContent);
}

async function follow() {
  try {
    const answer = await fetch("/delivery", { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
    const { delivery } = await answer.json();
    if (delivery !== line.dataset.delivery && sentences.has(delivery)) {
      line.dataset.delivery = delivery;
      line.textContent = sentences.get(delivery);
    }
  } catch {
    // The kiosk does not answer now: what the page says was true, and is asked for again.
  }
  setTimeout(follow, PAUSE_MS);
}

if (line) setTimeout(follow, PAUSE_MS);
