// What lets this browser act: the last part of the address that was printed, kept for this origin alone.
const KEY = "thrifty-token";
if (location.hash.startsWith("#token=")) {
  localStorage.setItem(KEY, location.hash.slice("#token=".length));
  history.replaceState(null, "", location.pathname + location.search);
}
export const may = () => Boolean(localStorage.getItem(KEY));
export const CANNOT = speech.t("This browser may look and not act: open the address that thrifty ui printed.");

export class Refused extends Error {}

// asks the server to do something; returns what it says
export const act = async (path, body) => {
  const reply = await fetch(path, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "Content-Type": "application/json", "X-Thrifty-Token": localStorage.getItem(KEY) ?? "" },
  });
  const text = await reply.text();
  let said = {};
  try {
    said = JSON.parse(text);
  } catch {
    said = { error: text };
  }
  if (!reply.ok) throw new Refused(said.error || speech.said(speech.t("The server answered {status}.", { status: reply.status })));
  return said;
};

// makes an element; texts in it are texts
export const make = (name, attributes = {}, ...inside) => {
  const element = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) {
    if (value !== false && value !== undefined) element.setAttribute(attribute, value === true ? "" : value);
  }
  element.append(...inside);
  return element;
};
