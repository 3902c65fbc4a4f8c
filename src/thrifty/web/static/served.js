// Shows what a server tells of its models, and keeps it fresh; whatever it tells is set as text alone.
import { act, CANNOT, make, may } from "./acts.js";

const AGAIN_MS = 2000;
const byId = (id) => document.getElementById(id);
let asked = 0; // the look that counts: an older one's answer comes too late

const tile = ({ what, figure, more }) => make("li", { class: "tile" }, make("div", { class: "what" }, what), make("div", { class: "measured" }, figure), make("div", { class: "predicted" }, more));

const card = (name, version, bill, number) => {
  const state = bill.versions?.[version.label];
  const heading = make("h2", { id: `model-${number}` }, name);
  const status = make("span", { class: state?.state === "ready" ? "status" : "status not-done" }, `version ${version.version}: ${state?.state ?? "gone"}`);
  return make("section", { "aria-labelledby": `model-${number}` },
    make("div", { class: "name" }, heading, status),
    make("p", { class: "said" }, version.does),
    make("ul", { class: "tiles" }, ...(bill.tiles?.[version.label] ?? []).map(tile)),
    make("dl", { class: "notes" }, ...(version.facts ?? []).flatMap(([what, text]) => [make("dt", {}, what), make("dd", {}, text)])));
};

const look = async (address, turn) => {
  if (turn !== asked) return;
  let again = true;
  try {
    const { cards, bill } = await act("/served", { address });
    if (turn !== asked) return;
    const all = (cards.models ?? []).flatMap(({ name, versions }) => versions.map((version) => [name, version]));
    byId("models").replaceChildren(...all.map(([name, version], number) => card(name, version, bill, number)));
    byId("source").textContent = bill.source ? `Energy and money are derived from processor time: ${bill.source}.` : "";
    byId("news").textContent = all.length ? "" : "No model is served there yet.";
  } catch (error) {
    if (turn !== asked) return;
    byId("models").replaceChildren();
    byId("source").textContent = "";
    byId("news").textContent = error.message;
    again = false;
  }
  if (again) setTimeout(() => look(address, turn), AGAIN_MS);
};

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  asked += 1;
  byId("news").textContent = "Asking.";
  look(byId("address").value.trim(), asked);
});
if (!may()) {
  byId("go").disabled = true;
  byId("news").textContent = CANNOT;
}
