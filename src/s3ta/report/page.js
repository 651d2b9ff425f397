"use strict";
// The only thing this script does: choose which head's attention is shown. Without it the mean over heads is.
for (const box of document.querySelectorAll("[data-heads]")) {
  const choose = box.querySelector("select");
  choose.closest("label").hidden = false;
  choose.addEventListener("change", () => {
    for (const map of box.querySelectorAll(".heat")) map.hidden = map.dataset.head !== choose.value;
  });
}
