// What every page does: no context menu, no drag, a tap keeps the session, silence ends it after a warning.
import { go, isGoing } from "./reach.js";
import { chime } from "./speech.js";

const body = document.body;
const token = document.querySelector('meta[name="csrf-token"]').content;

for (const gesture of ["contextmenu", "dragstart", "gesturestart"]) {
  document.addEventListener(gesture, (event) => event.preventDefault());
}
document.addEventListener("touchmove", (event) => event.touches.length > 1 && event.preventDefault(), { passive: false });
// A page that the browser keeps for "back" keeps nothing of its patient, and is asked for anew.
window.addEventListener("pagehide", (event) => event.persisted && body.replaceChildren());
window.addEventListener("pageshow", (event) => event.persisted && location.reload());

// Text that scrolls by itself says so: what is asked has to be read to its end.
const text = document.querySelector("main");
const more = text?.querySelector("[data-more]");
if (more) {
  const tell = () => {
    more.hidden = text.scrollTop + text.clientHeight > text.scrollHeight - 8;
    tellRead(more.hidden);
  };
  text.addEventListener("scroll", tell);
  new ResizeObserver(tell).observe(text.querySelector(".what"));
  more.addEventListener("click", () => text.scrollBy({ top: text.clientHeight * 0.7 }));
}

// Without a patient, what nobody touches leads to the first page; that one looks whether it would be another now, since
// whether new scans are taken changes meanwhile.
const LOOK_AGAIN_MS = 60000;
const READ_MS = 300000; // any other is read, and what it says may be asked for
const FIRST_MS = 10000;
if ("first" in body.dataset) {
  let next;
  const wait = () => {
    clearTimeout(next);
    next = setTimeout(look, body.dataset.first ? LOOK_AGAIN_MS : READ_MS);
  };
  const look = async () => {
    try {
      const answer = await fetch("/first", { cache: "no-store", signal: AbortSignal.timeout(FIRST_MS) });
      if (answer.ok && (await answer.json()).first !== body.dataset.first) {
        go("/");
        return;
      }
    } catch {
      // The kiosk is starting again: it is asked once more.
    }
    wait();
  };
  for (const sign of ["pointerdown", "keydown"]) document.addEventListener(sign, wait);
  wait();
}

if (body.dataset.left !== undefined) {
  watch(Number(body.dataset.left), Number(body.dataset.warning));
}
// The kiosk belongs to whom it hears of: another browser may begin only when this one is gone. A browser that shows no
// page, so that nothing is heard at all, is started again.
setInterval(() => fetch("/here", { signal: AbortSignal.timeout(5000) }).catch(() => {}), 1500);

function watch(seconds, warning) {
  const dialog = document.getElementById("still-here");
  const shown = dialog?.querySelector("[data-seconds]");
  // The browser knows the plurals of each language.
  const secondsOf = new Intl.NumberFormat(`${document.documentElement.lang}-u-nu-latn`, {
    style: "unit",
    unit: "second",
    unitDisplay: "long",
  });
  let end = performance.now() + seconds * 1000;
  let touched = 0;
  let asking = 0; // touches that the kiosk has not answered yet

  async function touch() {
    touched = performance.now();
    asking += 1;
    try {
      const signal = AbortSignal.timeout(5000);
      const answer = await fetch("/touch", { method: "POST", headers: { "X-CSRFToken": token }, signal });
      const { left, next } = await answer.json();
      if (next) go(next);
      else end = performance.now() + left * 1000;
    } catch {
      // The kiosk is starting again; the next tick or tap asks anew.
    } finally {
      asking -= 1;
    }
  }

  for (const sign of ["pointerdown", "keydown"]) {
    document.addEventListener(sign, () => {
      if (!dialog?.open && performance.now() - touched > 5000) touch();
    });
  }
  dialog?.querySelector("[data-still-here]").addEventListener("click", () => {
    dialog.close();
    end = performance.now() + seconds * 1000;
    touch();
  });
  dialog?.addEventListener("cancel", touch);

  setInterval(() => {
    if (isGoing() || asking) return;
    if (body.dataset.state === "working") {
      end = performance.now() + seconds * 1000;
      return;
    }
    const left = Math.ceil((end - performance.now()) / 1000);
    if (left <= 0) go("/");
    else if (dialog && left <= warning) {
      shown.textContent = secondsOf.format(left);
      if (!dialog.open) {
        dialog.showModal();
        chime("call");
      } else if (left % 10 === 0) chime("call");
    } else if (dialog?.open) dialog.close();
  }, 1000);
}
