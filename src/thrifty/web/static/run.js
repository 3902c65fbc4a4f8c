// Draws how a run or a search goes, asks for more while it is under way, and passes on what its reader asks of it.
import { act, CANNOT, make, may } from "./acts.js";
import { draw, standing } from "./plots.js";

const { t } = speech;
const AGAIN_MS = 1000, MOST_WAITED = 30;
const STOP = {
  run: t("Stop this run? It ends after the step at hand and keeps its best weights; it cannot be gone on with."),
  search: t("Stop this search? It ends after the step at hand, and its best trial is the answer."),
};
const byId = (id) => document.getElementById(id);
const run = byId("run"), path = `/runs/${run.dataset.number}`;
let seen = -1, waited = 0;

const place = (figure, at) => {
  if (byId(figure.id)) return;
  const plot = make("div", { class: "plot", id: figure.id, role: "img" });
  // one that comes later, such as the first validation, stands where it belongs
  byId("plots").insertBefore(make("figure", {}, make("figcaption", {}), make("p", { class: "keys" }), plot), byId("plots").children[at]);
};

const drawFigure = async (figure) => {
  const around = byId(figure.id).parentElement;
  speech.say(around.querySelector("figcaption"), figure.title);
  around.querySelector(".keys").replaceChildren(...figure.key.map(([label, color, look]) => {
    const mark = make("i", { class: look });
    mark.style.color = color;
    return make("span", {}, mark, speech.both(label));
  }));
  await draw(figure);
};

const show = async (course) => {
  speech.learn(course.words);
  speech.say(byId("says"), course.says);
  speech.say(byId("status"), course.paused ? t("paused") : course.status);
  byId("done").value = course.done ?? 0;
  byId("tiles").replaceChildren(...course.tiles.map(({ what, figure, more }) => make("li", { class: "tile" },
    make("div", { class: "what" }, speech.both(what)), make("div", { class: "measured" }, figure), make("div", { class: "predicted" }, speech.both(more)))));
  const pause = byId("pause"), waits = course.ask === "pause" || course.paused;
  if (pause) {
    pause.dataset.ask = waits ? "go" : "pause";
    speech.say(pause, waits ? t("Go on") : t("Pause"));
  }
  byId("happened").hidden = !course.told.length;
  byId("told").replaceChildren(...course.told.map((line) => make("li", line.trouble ? {} : { class: "soft" }, make("bdi", {}, speech.both(line.says)))));
  if (course.figures) {
    byId("curves").hidden = !course.figures.length;
    for (const [at, figure] of course.figures.entries()) {
      place(figure, at);
      await drawFigure(figure);
    }
  }
  seen = course.seen;
  run.dataset.seen = String(seen);
};

const turn = async () => {
  if (!document.hidden) {
    try {
      const reply = await fetch(`${path}/live?seen=${seen}`, { cache: "no-store" });
      const course = await reply.json();
      if (!reply.ok) throw new Error(course.error);
      // it ended: there is more to show, for one that is done once its report is written
      if (course.status !== run.dataset.status && (course.status !== "done" || course.report || (waited += 1) > MOST_WAITED)) {
        location.reload();
        return;
      }
      await show(course);
    } catch (error) {
      speech.say(byId("answer"), t("The server does not answer; it is asked again. {error}", { error: error.message }));
    }
  }
  setTimeout(turn, AGAIN_MS);
};

const ask = async (what) => {
  try {
    const { says } = await act(`${path}/steer`, what);
    speech.say(byId("answer"), says);
  } catch (error) {
    speech.say(byId("answer"), error.message);
  }
};

if (byId("steer")) {
  const controls = byId("steer").querySelectorAll("button, input");
  if (!may()) {
    for (const each of controls) each.disabled = true;
    speech.say(byId("answer"), CANNOT);
  }
  byId("pause").addEventListener("click", () => ask({ ask: byId("pause").dataset.ask }));
  byId("stop").addEventListener("click", () => {
    if (confirm(speech.said(STOP[byId("steer").dataset.of]))) ask({ ask: "stop" });
  });
  byId("steer").addEventListener("submit", (event) => {
    event.preventDefault();
    const lower = byId("lower").value.trim();
    if (lower) ask({ lower });
  });
}

await show(standing("course"));
if (run.dataset.status === "running") setTimeout(turn, AGAIN_MS);
