// Speech: says a line of this page by its name. The line is shown, read out by screen readers, and goes as the
// event "say" to whatever voice this kiosk has; the chime before it is what closed eyes go by.
const NOTES = { c: 523.25, e: 659.25, g: 783.99, low: 329.63 };
const CHIMES = {
  call: [["c", 0], ["e", 0.25]],
  fall: [["e", 0], ["low", 0.3]],
  rise: [["c", 0], ["e", 0.3], ["g", 0.6]],
};
const place = document.querySelector("[data-said]");
const picture = document.querySelector("[data-drawing]");
const lines = new Map();
for (const line of document.querySelector("[data-spoken]")?.content.children ?? []) {
  lines.set(line.dataset.name, line);
}

// Soft notes; a browser without sound is no reason to fail.
export function chime(name) {
  if (!window.AudioContext) return;
  const audio = new AudioContext();
  for (const [note, after] of CHIMES[name]) {
    const at = audio.currentTime + after;
    const tone = audio.createOscillator();
    const volume = audio.createGain();
    tone.frequency.value = NOTES[note];
    volume.gain.setValueAtTime(0.0001, at);
    volume.gain.exponentialRampToValueAtTime(0.2, at + 0.03);
    volume.gain.exponentialRampToValueAtTime(0.0001, at + 0.6);
    tone.connect(volume).connect(audio.destination);
    tone.start(at);
    tone.stop(at + 0.7);
  }
  setTimeout(() => audio.close(), 2000);
}

export function say(name) {
  const line = lines.get(name);
  if (!line) return;
  const [sentence, drawing] = line.children;
  chime(line.dataset.chime);
  place.textContent = sentence.textContent;
  picture?.replaceChildren(drawing.cloneNode(true));
  const detail = { name, text: sentence.textContent, language: document.documentElement.lang };
  document.dispatchEvent(new CustomEvent("say", { detail }));
}

if (document.body.dataset.say) say(document.body.dataset.say);
