// Draws figures as plotly's JSON has them, anew when they or the language change; text and axes have the sheet's colours.
const fine = matchMedia("(pointer: fine)").matches;
const config = { displayModeBar: false, displaylogo: false, responsive: true, doubleClick: "reset" };
const drawn = new Map();

export const draw = async (figure) => {
  drawn.set(figure.id, figure);
  const place = document.getElementById(figure.id);
  const { data, layout } = speech.figure(figure);
  layout.font.family = getComputedStyle(document.body).fontFamily;
  layout.uirevision = "kept"; // where a reader zoomed in stays when the figure is drawn anew
  // with a finger a drag scrolls the page; with a mouse it zooms
  if (fine && layout.hovermode !== "closest") layout.dragmode = "zoom";
  for (const axis of [layout.xaxis, layout.yaxis]) axis.fixedrange = layout.dragmode === false;
  speech.label(place, "aria-label", figure.says);
  place.style.height = `${layout.height}px`;
  await Plotly.react(place, data, layout, config);
  place.dataset.drawn = "yes";
};
document.addEventListener("language", () => drawn.forEach(draw));

// the figures that stand as JSON in the page
export const standing = (id = "figures") => JSON.parse(document.getElementById(id)?.textContent ?? "[]");

if (document.getElementById("figures")) for (const figure of standing()) draw(figure);
