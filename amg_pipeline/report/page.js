// Enlarges a card's picture beside its photo. Without scripts, its link opens the picture itself.
const dialog = document.querySelector("dialog");
const cards = [...document.querySelectorAll(".card[data-photo]")];
let shown = 0;

function show(index) {
  shown = (index + cards.length) % cards.length;
  const card = cards[shown];
  dialog.querySelector(".name").textContent = card.dataset.name;
  dialog.querySelector(".masks").src = card.querySelector("a").getAttribute("href");
  dialog.querySelector(".photo").src = card.dataset.photo;
  if (!dialog.open) dialog.showModal();
}

cards.forEach((card, index) => {
  card.querySelector("a").addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    show(index);
  });
});

dialog.addEventListener("click", (event) => {
  if (!event.target.matches("img")) dialog.close();
});

dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowRight") show(shown + 1);
  if (event.key === "ArrowLeft") show(shown - 1);
});
