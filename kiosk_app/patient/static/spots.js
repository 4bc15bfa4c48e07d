// A tap on the drawn face marks the place; the list of areas beside it needs none of this.
// Loaded before the page is drawn (no module, no defer): what can be touched listens from its first moment.
document.addEventListener("click", (event) => {
  const face = event.target.closest("[data-face]");
  if (!face) return;
  const form = document.querySelector("[data-place]");
  if ("sent" in form.dataset) return; // the first place counts
  const tap = new DOMPoint(event.clientX, event.clientY).matrixTransform(face.getScreenCTM().inverse());
  form.elements.x.value = (tap.x / Number(face.dataset.across)).toFixed(4);
  form.elements.y.value = (tap.y / Number(face.dataset.down)).toFixed(4);
  form.requestSubmit();
});
