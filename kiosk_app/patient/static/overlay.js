// A picture of the result that does not come, as while the keys are in use: a word stands in its place.
const picture = document.querySelector(".overlay img");

function say() {
  picture.hidden = true;
  picture.parentElement.querySelector("figcaption").hidden = false;
}

if (picture.complete && !picture.naturalWidth) say();
else picture.addEventListener("error", say);
