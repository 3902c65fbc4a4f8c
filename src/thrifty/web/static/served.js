// Shows what a server tells of its models, and keeps it fresh; whatever it tells is set as text alone.
import { act, CANNOT, make, may } from "./acts.js";

const { t, both } = speech;
const AGAIN_MS = 2000;
const byId = (id) => document.getElementById(id);
let asked = 0; // the look that counts: an older one's answer comes too late

const tile = ({ what, figure, more }) => make("li", { class: "tile" }, make("div", { class: "what" }, both(what)), make("div", { class: "measured" }, figure), make("div", { class: "predicted" }, both(more)));

const card = (name, version, bill, number) => {
  const state = bill.versions?.[version.label];
  const heading = make("h2", { id: `model-${number}` }, name);
  const says = t("version {version}: {state}", { version: version.version, state: state?.state ?? t("gone") });
  const status = make("span", { class: state?.state === "ready" ? "status" : "status not-done" }, both(says));
  return make("section", { "aria-labelledby": `model-${number}` },
    make("div", { class: "name" }, heading, status),
    make("p", { class: "said" }, both(version.does)),
    make("ul", { class: "tiles" }, ...(bill.tiles?.[version.label] ?? []).map(tile)),
    make("dl", { class: "notes" }, ...(version.facts ?? []).flatMap(([what, text]) => [make("dt", {}, both(what)), make("dd", {}, both(text))])));
};

const look = async (address, turn) => {
  if (turn !== asked) return;
  let again = true;
  try {
    const { cards, bill, words } = await act("/served", { address });
    if (turn !== asked) return;
    speech.learn(words);
    const all = (cards.models ?? []).flatMap(({ name, versions }) => versions.map((version) => [name, version]));
    byId("models").replaceChildren(...all.map(([name, version], number) => card(name, version, bill, number)));
    speech.say(byId("source"), bill.source ? t("Energy and money are derived from processor time: {source}.", { source: bill.source }) : "");
    speech.say(byId("news"), all.length ? "" : t("No model is served there yet."));
  } catch (error) {
    if (turn !== asked) return;
    byId("models").replaceChildren();
    speech.say(byId("source"), "");
    speech.say(byId("news"), error.message);
    again = false;
  }
  if (again) setTimeout(() => look(address, turn), AGAIN_MS);
};

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  asked += 1;
  speech.say(byId("news"), t("Asking."));
  look(byId("address").value.trim(), asked);
});
if (!may()) {
  byId("go").disabled = true;
  speech.say(byId("news"), CANNOT);
}
