// The language of a page: both lie in it, and a style rule shows one. A button changes it; what no style reaches follows here.
"use strict";
const speech = (() => {
  const root = document.documentElement;
  const KEY = "thrifty-language";
  const NAMED = ["aria-label", "aria-valuetext", "alt", "title", "placeholder"];
  // attributes stand in the language that the page came in, beside what they are in the other
  const came = root.dataset.language;
  let words, more = {};

  const now = () => root.dataset.language;
  const known = () => (words ??= JSON.parse(document.getElementById("words")?.textContent ?? "{}"));
  const inChinese = (text) => [more, known()].find((each) => Object.hasOwn(each, text))?.[text] ?? text;
  // what is said is a text of the page's words, or English and Chinese as two
  const pair = (said) => (Array.isArray(said) ? said : [said, typeof said === "string" ? inChinese(said) : said]);
  const said = (text) => pair(text)[now() === "zh" ? 1 : 0];
  // fills what stands in braces, in each language
  const t = (text, values = {}) =>
    [text, inChinese(text)].map((each, at) => each.replace(/\{(\w+)\}/g, (whole, name) => pair(values[name])[at]));

  // both languages for a place in the page
  const both = (text) => {
    const [english, other] = pair(text);
    const fragment = document.createDocumentFragment();
    if (english === other) fragment.append(english);
    else {
      for (const [kind, says] of [["en", english], ["zh", other]]) {
        const part = document.createElement("span");
        part.className = kind;
        if (kind === "zh") part.lang = "zh-Hans";
        part.append(says);
        fragment.append(part);
      }
    }
    return fragment;
  };
  const shown = new WeakMap();
  // what stays is left alone: a screen reader would tell it again
  const say = (element, text) => {
    const key = JSON.stringify(pair(text));
    if (!element || shown.get(element) === key) return;
    shown.set(element, key);
    element.replaceChildren(both(text));
  };
  const label = (element, name, text) => {
    const [one, other] = now() === "zh" ? [...pair(text)].reverse() : pair(text);
    element.setAttribute(name, one);
    element.setAttribute(`data-other-${name}`, other);
    return element;
  };
  // a figure as plotly takes it
  const figure = ({ data, layout }) => {
    const copy = structuredClone({ data, layout });
    for (const trace of copy.data) {
      if (trace.name) trace.name = said(trace.name);
      for (const key of ["x", "y", "text"]) if (Array.isArray(trace[key])) trace[key] = trace[key].map(said);
    }
    for (const axis of [copy.layout.xaxis, copy.layout.yaxis]) if (axis.title?.text) axis.title.text = said(axis.title.text);
    return copy;
  };

  const swap = (tree) => {
    for (const name of NAMED) {
      const beside = `data-other-${name}`;
      for (const element of tree.querySelectorAll(`[${beside}]`)) {
        const before = element.getAttribute(name);
        element.setAttribute(name, element.getAttribute(beside));
        element.setAttribute(beside, before);
      }
    }
    for (const element of tree.querySelectorAll("[data-other-text]")) {
      const before = element.textContent;
      element.textContent = element.dataset.otherText;
      element.dataset.otherText = before;
    }
  };
  const turn = (language) => {
    root.dataset.language = language;
    root.lang = language === "zh" ? "zh-Hans" : "en";
  };
  const speak = (language) => {
    if (language === now()) return;
    turn(language);
    swap(document);
    if ("kept" in root.dataset) localStorage.setItem(KEY, language);
    document.dispatchEvent(new Event("language"));
  };
  const ofAddress = () => /^#(en|zh)$/.exec(location.hash)?.[1];
  const ofReader = () => localStorage.getItem(KEY) ?? navigator.languages.find((each) => /^(en|zh)\b/i.test(each))?.slice(0, 2).toLowerCase();
  const wanted = ofAddress() ?? ("kept" in root.dataset ? ofReader() : undefined) ?? came;

  turn(wanted);
  // before any module runs: what those make is in the right language
  document.addEventListener("readystatechange", () => {
    if (document.readyState !== "interactive") return;
    if (wanted !== came) swap(document);
    const button = document.getElementById("language");
    if (!button) return;
    button.hidden = false;
    button.addEventListener("click", () => speak(now() === "zh" ? "en" : "zh"));
  });
  addEventListener("hashchange", () => ofAddress() && speak(ofAddress()));

  return {
    now, t, said, both, say, label, figure,
    // words of an answer of the server, in the place of the last one's
    learn: (words) => { more = words; },
    // a part of the page as it came, taken up later
    adopt: (tree) => { if (now() !== came) swap(tree); },
  };
})();
