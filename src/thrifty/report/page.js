// Draws the figures that stand as JSON in the page; colours of axes and text are the style sheet's.
"use strict";
{
  const fine = matchMedia("(pointer: fine)").matches;
  const config = { displayModeBar: false, displaylogo: false, responsive: true, doubleClick: "reset" };
  // so that the style sheet can scale a drawn figure to the width of a printed page
  const scalable = (place) => {
    for (const svg of place.querySelectorAll("svg.main-svg")) {
      svg.setAttribute("viewBox", `0 0 ${svg.getAttribute("width")} ${svg.getAttribute("height")}`);
    }
  };
  for (const figure of JSON.parse(document.getElementById("figures").textContent)) {
    const place = document.getElementById(figure.id);
    figure.layout.font.family = getComputedStyle(document.body).fontFamily;
    // with a finger a drag scrolls the page; with a mouse it zooms
    if (fine && figure.layout.hovermode !== "closest") figure.layout.dragmode = "zoom";
    for (const axis of [figure.layout.xaxis, figure.layout.yaxis]) axis.fixedrange = figure.layout.dragmode === false;
    Plotly.newPlot(place, figure.data, figure.layout, config).then(() => {
      scalable(place);
      place.on("plotly_afterplot", () => scalable(place));
      place.dataset.drawn = "yes";
    });
  }
}
