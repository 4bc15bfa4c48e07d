// A tap on the drawn face marks the place; the list of areas beside it needs none of this.
const face = document.querySelector("[data-face]");
const form = document.querySelector("[data-place]");

face?.addEventListener("click", (event) => {
  const tap = new DOMPoint(event.clientX, event.clientY).matrixTransform(face.getScreenCTM().inverse());
  const unit = Number(face.dataset.unit);
  form.elements.x.value = (-tap.x / unit).toFixed(4); // drawn as in a mirror
  form.elements.y.value = (tap.y / unit).toFixed(4);
  form.requestSubmit();
});
