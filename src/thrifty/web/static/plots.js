// Draws figures as plotly's JSON has them, and draws them anew when they change; text and axes have the sheet's colours.
const fine = matchMedia("(pointer: fine)").matches;
const config = { displayModeBar: false, displaylogo: false, responsive: true, doubleClick: "reset" };

export const draw = async (figure) => {
  const place = document.getElementById(figure.id);
  const layout = figure.layout;
  layout.font.family = getComputedStyle(document.body).fontFamily;
  layout.uirevision = "kept"; // where a reader zoomed in stays when the figure is drawn anew
  // with a finger a drag scrolls the page; with a mouse it zooms
  if (fine && layout.hovermode !== "closest") layout.dragmode = "zoom";
  for (const axis of [layout.xaxis, layout.yaxis]) axis.fixedrange = layout.dragmode === false;
  place.setAttribute("aria-label", figure.says);
  place.style.height = `${layout.height}px`;
  await Plotly.react(place, figure.data, layout, config);
  place.dataset.drawn = "yes";
};

// the figures that stand as JSON in the page
export const standing = (id = "figures") => JSON.parse(document.getElementById(id)?.textContent ?? "[]");

if (document.getElementById("figures")) for (const figure of standing()) draw(figure);
