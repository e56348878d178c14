// The sliders: opacity of every heat map, and the share of the scale below which it is not drawn.
const form = document.querySelector(".controls");
if (form) {
  form.hidden = false;
  const alpha = document.querySelector("#above feFuncA");
  form.addEventListener("input", () => {
    const { opacity, threshold } = form.elements;
    for (const slider of [opacity, threshold]) slider.nextElementSibling.value = `${slider.value} %`;
    const steps = Array.from({ length: 101 }, (_, i) => (i < threshold.value ? 0 : i / 100));
    alpha.setAttribute("tableValues", steps.join(" "));
    for (const heat of document.querySelectorAll(".heat")) {
      heat.style.opacity = opacity.value / 100;
      heat.style.filter = threshold.value > 0 ? "url(#above)" : "";
    }
  });
}
