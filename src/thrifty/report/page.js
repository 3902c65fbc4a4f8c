// Draws the figures that stand as JSON in the page, in the language it is in; colours of axes and text are the style sheet's.
"use strict";
{
  const fine = matchMedia("(pointer: fine)").matches;
  const config = { displayModeBar: false, displaylogo: false, responsive: true, doubleClick: "reset" };
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const words = JSON.parse(document.getElementById("words")?.textContent ?? "{}");
  const root = document.documentElement;
  const named = ["aria-label", "alt"];

  // so that the style sheet can scale a drawn figure to the width of a printed page
  const scalable = (place) => {
    for (const svg of place.querySelectorAll("svg.main-svg")) {
      svg.setAttribute("viewBox", `0 0 ${svg.getAttribute("width")} ${svg.getAttribute("height")}`);
    }
  };
  const said = (text) => (root.dataset.language === "zh" && typeof text === "string" && Object.hasOwn(words, text) ? words[text] : text);
  const translated = (figure) => {
    const copy = structuredClone(figure);
    for (const trace of copy.data) {
      if (trace.name) trace.name = said(trace.name);
      for (const key of ["x", "y", "text"]) if (Array.isArray(trace[key])) trace[key] = trace[key].map(said);
    }
    for (const axis of [copy.layout.xaxis, copy.layout.yaxis]) if (axis.title?.text) axis.title.text = said(axis.title.text);
    return copy;
  };
  const draw = (figure) => {
    const place = document.getElementById(figure.id);
    const { data, layout } = translated(figure);
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
  const speak = (language) => {
    root.dataset.language = language;
    root.lang = language === "zh" ? "zh-Hans" : "en";
    for (const name of named) {
      const other = `data-other-${name}`;
      for (const element of document.querySelectorAll(`[${other}]`)) {
        const now = element.getAttribute(name);
        element.setAttribute(name, element.getAttribute(other));
        element.setAttribute(other, now);
      }
    }
    figures.forEach(draw);
  };

  const button = document.getElementById("language");
  if (button) {
    button.hidden = false;
    button.addEventListener("click", () => speak(root.dataset.language === "zh" ? "en" : "zh"));
  }
  figures.forEach(draw);
}
