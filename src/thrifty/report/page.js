// Draws the figures that stand as JSON in the page, in the language it is in; colours of axes and text are the style sheet's.
"use strict";
{
  const fine = matchMedia("(pointer: fine)").matches;
  const config = { displayModeBar: false, displaylogo: false, responsive: true, doubleClick: "reset" };
  const figures = JSON.parse(document.getElementById("figures").textContent);

  // so that the style sheet can scale a drawn figure to the width of a printed page
  const scalable = (place) => {
    for (const svg of place.querySelectorAll("svg.main-svg")) {
      svg.setAttribute("viewBox", `0 0 ${svg.getAttribute("width")} ${svg.getAttribute("height")}`);
    }
  };
  const draw = (figure) => {
    const place = document.getElementById(figure.id);
    const { data, layout } = speech.figure(figure);
    layout.font.family = getComputedStyle(document.body).fontFamily;
    // with a finger a drag scrolls the page; with a mouse it zooms
    if (fine && layout.hovermode !== "closest") layout.dragmode = "zoom";
    for (const axis of [layout.xaxis, layout.yaxis]) axis.fixedrange = layout.dragmode === false;
    const first = !place.dataset.drawn;
    return Plotly.react(place, data, layout, config).then(() => {
      scalable(place);
      if (first) place.on("plotly_afterplot", () => scalable(place));
      place.dataset.drawn = "yes";
    });
  };

  document.addEventListener("language", () => figures.forEach(draw));
  figures.forEach(draw);
}
