// Prices a job once, then draws what is left of its ways as the limits move, and tells the one to take: all of that happens here.
import { act, CANNOT, make, may } from "./acts.js";
import { draw } from "./plots.js";

const { t, both } = speech;
const byId = (id) => document.getElementById(id);
const STEPS = 200, MOST_ROWS = 40;
const ORANGE = "#d9730d", BLUE = "#3b7dd8", GREY = "#808a94";

const scaled = (value, units, digits = 3) => {
  const [from, unit, size = from] = units.find(([each]) => Math.abs(value) >= each) ?? units.at(-1);
  return `${Number((value / size).toPrecision(digits))} ${unit}`;
};
const SHOW = {
  seconds: (value) => scaled(value, [[2 * 86400, "d", 86400], [3600, "h"], [60, "min"], [1, "s"], [1e-3, "ms"]]),
  bytes: (value) => scaled(value, [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]]),
  usd: (value) => (value ? (value < 1e-5 ? "< $0.00001" : `$${value >= 100 ? Math.round(value).toLocaleString("en") : Number(value.toPrecision(3))}`) : t("no price")),
  joules: (value) => scaled(value, [[3.6e9, "MWh"], [3.6e6, "kWh"], [3600, "Wh"], [1, "J"]]),
};
const NAMES = { bytes: t("Memory of a device"), seconds: t("Time"), usd: t("Money") };

let ways = [];
let taken = null; // the way that was chosen by hand; the quickest that is left where none was
let sliders = {};

// ---- limits ----
const sliderOf = (quantity) => {
  const values = ways.map((way) => way[quantity]).filter((value) => value > 0).sort((one, other) => one - other);
  if (!values.length) return null;
  const [low, high] = [values[0] * 0.9, values.at(-1) * 1.02];
  const input = make("input", { type: "range", id: `limit-${quantity}`, min: 0, max: STEPS, value: STEPS });
  const output = make("output", { for: input.id });
  const limit = () => (Number(input.value) >= STEPS ? Infinity : low * (high / low) ** (Number(input.value) / STEPS));
  const say = () => {
    const text = limit() === Infinity ? t("any") : t("at most {limit}", { limit: SHOW[quantity](limit()) });
    speech.say(output, text);
    speech.label(input, "aria-valuetext", text);
  };
  input.addEventListener("input", () => { say(); redraw(); });
  say();
  byId("sliders").append(make("div", { class: "field" }, make("label", { for: input.id }, both(NAMES[quantity])), input, output));
  return limit;
};

const beats = (one, other) => {
  const all = ["seconds", "bytes", "usd"];
  return all.every((name) => one[name] <= other[name]) && all.some((name) => one[name] < other[name]);
};

// ---- what is left ----
const parted = () => {
  const kept = ways.filter((way) => way.fits && Object.entries(sliders).every(([name, limit]) => way[name] <= limit()));
  const front = kept.filter((way) => !kept.some((other) => beats(other, way)));
  const best = front.reduce((least, way) => (!least || way.seconds < least.seconds ? way : least), null);
  return { kept, front, best };
};

const figuresOf = (way) => ({ name: way.name, time: SHOW.seconds(way.seconds), memory: SHOW.bytes(way.bytes), money: SHOW.usd(way.usd) });
// plotly reads a few tags in a label
const literal = (said) => said.map((text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;"));

const points = (name, chosen, against, color, symbol, size, opacity) => ({
  type: "scatter", mode: "markers", name, x: chosen.map((way) => way[against]), y: chosen.map((way) => way.seconds),
  text: chosen.map((way) => literal(t("{name}: {time}, {memory}, {money}", figuresOf(way)))),
  hovertemplate: "%{text}<extra></extra>", marker: { color, symbol, size, opacity }, cliponaxis: false,
});

const axis = (quantity, title) => {
  const values = ways.map((way) => way[quantity]).filter((value) => value > 0);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const ticks = [];
  const far = high > 3 * low;
  for (let at = 0; at <= 4; at += 1) ticks.push(far ? low * (high / low) ** (at / 4) : low + ((high - low) * at) / 4);
  const room = far ? 0.08 * Math.log10(high / low) : 0.12 * (high - low || high);
  const range = far ? [Math.log10(low) - room, Math.log10(high) + room] : [Math.max(0, low - room), high + room];
  const shown = [...new Map(ticks.map((tick) => [SHOW[quantity](Number(tick.toPrecision(2))), tick])).entries()];
  return {
    type: far ? "log" : "linear", range, tickvals: shown.map(([, tick]) => tick), ticktext: shown.map(([text]) => text), zeroline: false,
    automargin: true, gridcolor: GREY, ticks: "", title: { text: title, standoff: 6, font: { size: 12 } },
  };
};

const figureOf = ({ kept, front, best }, against) => {
  const rest = ways.filter((way) => !front.includes(way));
  const others = front.filter((way) => way !== best);
  const counts = { left: kept.length, all: ways.length };
  return {
    id: "ways",
    says: best
      ? t("{left} of {all} ways are within the limits; the quickest is {name}, {time}.", { ...counts, ...figuresOf(best) })
      : t("{left} of {all} ways are within the limits; none is left.", counts),
    data: [
      points(t("beaten, or past a limit"), rest, against, GREY, "circle", 7, 0.4),
      points(t("no other beats it"), others, against, BLUE, "circle", 9, 1),
      points(t("the quickest"), best ? [best] : [], against, ORANGE, "diamond", 14, 1),
    ],
    layout: {
      height: 360, margin: { l: 8, r: 16, t: 10, b: 8 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { size: 12 }, hovermode: "closest", dragmode: false, showlegend: false,
      hoverlabel: { bgcolor: "#20262b", bordercolor: "#20262b", font: { color: "#f4f6f7", size: 12 } },
      xaxis: axis(against, against === "usd" ? t("money") : t("memory of a device")), yaxis: axis("seconds", t("time")),
    },
  };
};

const rowOf = (way, best) => {
  const radio = make("input", { type: "radio", name: "way", checked: way === (taken ?? best) });
  radio.addEventListener("change", () => { taken = way; tell(way); });
  const under = [way.says, way.remark].filter((text) => text && text[0]);
  return make("tr", way === best ? { class: "chosen" } : {},
    make("th", { scope: "row" }, make("label", { class: "pick" }, radio, make("span", {}, both(way.name))),
      ...(under.length ? [make("small", {}, ...under.flatMap((text, at) => (at ? ["; ", both(text)] : [both(text)])))] : [])),
    ...["seconds", "bytes", "usd", "joules"].map((name) => make("td", { class: "n" }, both(SHOW[name](way[name])), ...(name === "seconds" && way.spread ? [make("br"), make("small", {}, way.spread)] : []))));
};

// ---- the way to take ----
const tell = (way) => {
  byId("take").hidden = !way?.command;
  if (byId("take").hidden) return;
  speech.say(byId("taken"), way.job
    ? t("{name}: what it decides stands in {section} of the job. Save it as {file}, and run it.", { name: way.name, section: "plan", file: way.file })
    : t("{name}: what a run would take there, in full.", { name: way.name }));
  byId("written").hidden = !way.job;
  byId("text").textContent = way.job;
  byId("command").textContent = way.command;
  speech.say(byId("copied"), "");
};

const copy = async (id) => {
  const place = byId(id);
  try {
    await navigator.clipboard.writeText(place.textContent);
    speech.say(byId("copied"), t("Copied."));
  } catch {
    // without a secure address a page may not write the clipboard: it is chosen, to be copied by hand
    getSelection().selectAllChildren(place);
    speech.say(byId("copied"), t("It is chosen: copy it with the keyboard."));
  }
};

const redraw = async () => {
  const begun = performance.now();
  const left = parted();
  const { kept, front, best } = left;
  if (!front.includes(taken)) taken = null;
  speech.say(byId("best"), best
    ? t("{left} of {all} ways are left. The quickest: {name}, {time}, {memory}, {money}.", { left: kept.length, all: ways.length, ...figuresOf(best) })
    : t("No way is within these limits. The quickest of all takes {time}, the smallest {memory}.", {
      time: SHOW.seconds(Math.min(...ways.map((way) => way.seconds))), memory: SHOW.bytes(Math.min(...ways.map((way) => way.bytes))),
    }));
  const ranked = [...front].sort((one, other) => one.seconds - other.seconds).slice(0, MOST_ROWS);
  byId("rows").replaceChildren(...ranked.map((way) => rowOf(way, best)));
  tell(taken ?? best);
  await draw(figureOf(left, document.querySelector('input[name="against"]:checked').value));
  byId("ways").dataset.redrawMs = (performance.now() - begun).toFixed(1);
};

// ---- asking ----
const show = (proposal) => {
  ({ ways } = proposal);
  taken = null;
  speech.say(byId("what"), t("{what} · {where}", proposal));
  byId("sliders").replaceChildren();
  const found = Object.keys(NAMES).map((quantity) => [quantity, sliderOf(quantity)]).filter(([, limit]) => limit);
  sliders = Object.fromEntries(found);
  for (const radio of document.querySelectorAll('input[name="against"]')) {
    radio.disabled = !(radio.value in sliders);
    radio.checked = radio.value === (proposal.machines && sliders.usd ? "usd" : "bytes");
  }
  // what is in one language is in the planner's own words
  byId("said").replaceChildren(...proposal.said.flatMap(([label, text]) => [make("dt", {}, both(label)), make("dd", Array.isArray(text) ? {} : { lang: "en" }, both(text))]));
  const any = ways.length > 0;
  for (const id of ["limits", "front"]) byId(id).hidden = !any;
  byId("why").hidden = false;
  speech.say(byId("news"), any ? "" : t("Nothing fits. {changes}", { changes: proposal.would_fit.join("; ") }));
  if (any) redraw();
  else byId("take").hidden = true;
};

for (const radio of document.querySelectorAll('input[name="against"]')) radio.addEventListener("change", redraw);
for (const id of ["text", "command"]) byId(`copy-${id}`).addEventListener("click", () => copy(id));
if (byId("ask")) {
  if (!may()) {
    byId("go").disabled = true;
    speech.say(byId("news"), CANNOT);
  }
  byId("ask").addEventListener("submit", async (event) => {
    event.preventDefault();
    byId("go").disabled = true;
    speech.say(byId("news"), t("Pricing: the data is prepared if it is not yet, and models are traced. The first time on a machine it is measured, for some minutes."));
    try {
      show(await act("/plan", { job: byId("job").value, on: byId("on").value.trim() }));
    } catch (error) {
      speech.say(byId("news"), error.message);
    } finally {
      byId("go").disabled = false;
    }
  });
}
