// Counts the runs that are chosen, so that the button can say what it waits for.
const MOST = 6;
const boxes = [...document.querySelectorAll('input[name="run"]')];
const button = document.getElementById("compare"), said = document.getElementById("chosen");
const count = () => {
  const chosen = boxes.filter((box) => box.checked).length;
  button.disabled = chosen < 2 || chosen > MOST;
  said.textContent = chosen < 2 ? "Choose two or more." : chosen > MOST ? `Choose at most ${MOST}.` : `${chosen} chosen.`;
};
for (const box of boxes) box.addEventListener("change", count);
if (button) count();
