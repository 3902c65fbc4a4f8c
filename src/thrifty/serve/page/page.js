// Shows a server's models, tries them, and keeps their bills fresh; whatever the server tells is set as text alone.
"use strict";
{
  const REFRESH_MS = 2000, MOST_BARS = 10;
  const byId = (id) => document.getElementById(id);
  const main = byId("models"), news = byId("news"), locked = byId("locked");
  const cards = new Map(); // of each model's name, what shows it
  let key = ""; // in this page's memory alone
  let known = ""; // labels of the versions that the cards show
  let numbers = 0; // given out to the fields of forms, whose labels name them

  const make = (name, attributes = {}, ...inside) => {
    const element = document.createElement(name);
    for (const [attribute, value] of Object.entries(attributes)) {
      if (value !== false && value !== undefined) element.setAttribute(attribute, value === true ? "" : value);
    }
    element.append(...inside);
    return element;
  };

  class Refused extends Error {
    constructor(status, text) { super(text); this.status = status; }
  }

  const ask = async (path, options = {}) => {
    const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
    const reply = await fetch(path, { cache: "no-store", ...options, headers });
    if (reply.ok) return reply;
    const text = await reply.text();
    let said = text;
    try {
      const { error } = JSON.parse(text);
      said = error.message ?? error;
    } catch { /* it is no JSON: told as it is */ }
    throw new Refused(reply.status, said || `The server answered ${reply.status}`);
  };
  const post = (path, body, options = {}) =>
    ask(path, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" }, ...options });

  // ---- fields ----
  const field = (text, input) => {
    input.id = `field-${++numbers}`;
    return make("div", { class: "field" }, make("label", { for: input.id }, text), input);
  };
  const asBase64 = (file) => new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(file);
  });

  const fileForm = (form, { kind }) => {
    const sound = kind === "audio";
    const input = make("input", { type: "file", accept: sound ? "audio/*" : "image/*", required: true });
    const zone = field(sound ? "A recording: choose a file, or drop one here" : "An image: choose a file, or drop one here", input);
    zone.classList.add("drop");
    let shown = null;
    const show = () => {
      if (shown) URL.revokeObjectURL(shown.src);
      shown?.remove();
      shown = null;
      const [file] = input.files;
      if (!file) return;
      shown = sound ? make("audio", { controls: true, "aria-label": "The chosen recording" }) : make("img", { alt: `The chosen image, ${file.name}` });
      const drawn = shown; // a format that the browser does not know may still be one that the model does
      shown.addEventListener("error", () => drawn.remove());
      shown.src = URL.createObjectURL(file);
      zone.append(shown);
    };
    input.addEventListener("change", show);
    for (const name of ["dragenter", "dragover"]) {
      zone.addEventListener(name, (event) => { event.preventDefault(); zone.classList.add("over"); });
    }
    for (const name of ["dragleave", "drop"]) {
      zone.addEventListener(name, (event) => { event.preventDefault(); zone.classList.remove("over"); });
    }
    zone.addEventListener("drop", (event) => {
      if (!event.dataTransfer.files.length) return;
      input.files = event.dataTransfer.files;
      show();
    });
    form.append(zone);
    return async () => ({ b64: await asBase64(input.files[0]) });
  };

  const textForm = (form, { pair, hides }) => {
    const area = () => make("textarea", { required: true, spellcheck: "false" });
    if (pair) {
      const [first, second] = [area(), area()];
      form.append(field("First text", first), field("Second text", second));
      // a tab stands between the two
      return () => [first, second].map((each) => each.value.replaceAll("\t", " ")).join("\t");
    }
    const one = area();
    form.append(field(hides ? "A text with [MASK] in the place of hidden words" : "A text", one));
    return () => one.value;
  };

  const rowForm = (form, { columns }) => {
    const cells = make("div", { class: "cells", role: "group", "aria-label": "Cells of a row; an empty one is unknown" });
    const inputs = columns.map((column) => {
      let input;
      if (column.kind === "boolean") {
        input = make("select", {}, make("option", { value: "" }, "–"), ...column.values.map((value) => make("option", { value }, value)));
      } else {
        input = make("input", { placeholder: column.usual, ...(column.kind === "number" && { type: "number", step: "any" }) });
        if (column.kind === "category" && column.values.length) {
          const list = make("datalist", { id: `values-${++numbers}` }, ...column.values.map((value) => make("option", { value })));
          input.setAttribute("list", list.id);
          cells.append(list);
        }
      }
      cells.append(field(column.name, input));
      return [column, input];
    });
    form.append(cells);
    return () => Object.fromEntries(
      inputs.filter(([, input]) => input.value !== "")
        .map(([column, input]) => [column.name, column.kind === "number" ? input.valueAsNumber : input.value]),
    );
  };

  const promptForm = (form, { most_tokens: most }) => {
    const prompt = make("textarea", {});
    const number = (text, value, rest) => {
      const input = make("input", { type: "number", required: true, value: String(value), ...rest });
      return [field(text, input), () => input.valueAsNumber];
    };
    const [tokens, countTokens] = number("Tokens at most", Math.min(64, Math.ceil(most / 2)), { min: 1, max: most });
    const [heat, temperature] = number("Temperature", 0.8, { min: 0, max: 2, step: "any" });
    const [draw, seed] = number("Seed", 0, { min: 0, max: 2147483647 });
    form.append(field("Prompt", prompt), make("div", { class: "options" }, tokens, heat, draw));
    return () => ({ prompt: prompt.value, max_tokens: countTokens(), temperature: temperature(), seed: seed() });
  };

  const FORMS = { image: fileForm, audio: fileForm, text: textForm, table: rowForm, language: promptForm };

  // ---- answers ----
  const share = (value) => `${(100 * value).toFixed(1)} %`;
  const bars = (caption, pairs) => {
    const rows = pairs.slice(0, MOST_BARS).map(([label, value]) => {
      const bar = make("i");
      bar.style.width = `${Math.max(0, Math.min(1, value)) * 100}%`;
      return make("tr", {}, make("th", { scope: "row" }, label), make("td", { class: "n" }, share(value)), make("td", { class: "bar", "aria-hidden": "true" }, bar));
    });
    return make("table", { class: "labels" }, make("caption", {}, caption), make("tbody", {}, ...rows));
  };
  const likeliest = (pairs) => [...pairs].sort((one, other) => other[1] - one[1]);
  const told = (version, answer) => {
    if (typeof answer === "number") {
      return [make("p", { class: "said-first" }, `${version.target}: ${answer.toLocaleString("en", { maximumSignificantDigits: 6 })}`)];
    }
    if (typeof answer === "string") return [make("blockquote", {}, answer || "(nothing)")];
    if (answer.probabilities) {
      const said = answer.label ?? (JSON.parse(answer.labels).join(", ") || "none of the labels");
      const pairs = likeliest(answer.probabilities.map((value, at) => [version.labels[at] ?? `label ${at + 1}`, value]));
      return [make("p", { class: "said-first" }, said), bars(pairs.length > MOST_BARS ? `The ${MOST_BARS} likeliest` : "How likely", pairs)];
    }
    if (answer.filled !== undefined) {
      const words = JSON.parse(answer.words).map((each, at) => bars(`Hidden word ${at + 1}`, likeliest(Object.entries(each))));
      return [make("blockquote", {}, answer.filled), ...words];
    }
    return [make("pre", {}, JSON.stringify(answer, null, 2))];
  };

  const path = (name, version) => `v1/models/${encodeURIComponent(name)}/versions/${version.version}:predict`;

  const predict = async (name, version, given, answer) => {
    const { input, kind } = version.form;
    const instance = kind === "language" ? given : { [input]: given };
    const reply = await post(path(name, version), { instances: [instance] });
    const text = await reply.text();
    let found;
    try {
      [found] = JSON.parse(text).predictions;
    } catch { // NaN and infinity, which the protocol says and JSON does not
      found = text;
    }
    answer.append(...told(version, found));
  };

  // a stream of events, a line of JSON each; it may be cut anywhere
  const write = async (version, given, answer, signal) => {
    const reply = await post("v1/completions", { model: version.label, ...given, stream: true }, { signal });
    const before = make("span", { class: "prompt" }, given.prompt), after = make("span");
    answer.append(make("blockquote", {}, before, after));
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
        const event = JSON.parse(line.slice(6));
        if (event.error) throw new Refused(event.error.code, event.error.message);
        after.append(event.choices[0]?.text ?? "");
      }
    }
  };

  // ---- cards ----
  const formOf = (card, name, version) => {
    const form = make("form", { class: "try", "aria-label": `Try ${name}` });
    const read = FORMS[version.form.kind](form, version.form);
    const writes = version.form.writes;
    const go = make("button", {}, writes ? "Write" : "Ask");
    const stop = make("button", { type: "button", class: "plain", hidden: true }, "Stop");
    form.append(make("div", { class: "buttons" }, go, ...(writes ? [stop] : [])));
    const answer = card.querySelector(".answer");
    let leaving = null;
    stop.addEventListener("click", () => leaving?.abort());
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const begun = performance.now();
      leaving = new AbortController();
      go.disabled = true;
      stop.hidden = false;
      answer.replaceChildren();
      answer.setAttribute("aria-busy", "true"); // read out once it is whole
      try {
        const given = await read();
        await (writes ? write(version, given, answer, leaving.signal) : predict(name, version, given, answer));
        answer.append(make("p", { class: "took" }, `Answered in ${(performance.now() - begun).toFixed(0)} ms, as seen from here.`));
      } catch (error) {
        if (error.name === "AbortError") answer.append(make("p", { class: "took" }, "Stopped."));
        else if (error.status === 401) lock();
        else answer.append(make("p", { class: "trouble", role: "alert" }, error.message));
      } finally {
        answer.setAttribute("aria-busy", "false");
        go.disabled = false;
        stop.hidden = true;
      }
    });
    return form;
  };

  const show = (card, name, version) => {
    card.version = version;
    const { element } = card;
    element.querySelector(".does").textContent = version.does;
    element.querySelector(".facts").replaceChildren(...version.facts.flatMap(([what, text]) => [make("dt", {}, what), make("dd", {}, text)]));
    element.querySelector(".answer").replaceChildren();
    element.querySelector("form.try").replaceWith(formOf(element, name, version));
    element.querySelector(".tiles").replaceChildren();
  };

  const cardOf = ({ name, versions }) => {
    const element = byId("card").content.firstElementChild.cloneNode(true);
    const title = element.querySelector("h2");
    title.textContent = name;
    title.id = `model-${++numbers}`;
    element.setAttribute("aria-labelledby", title.id);
    const card = { element, version: versions[0] };
    const choice = element.querySelector("select");
    choice.id = `version-${++numbers}`;
    element.querySelector(".versions label").htmlFor = choice.id;
    choice.append(...versions.map(({ version }) => make("option", { value: version }, String(version))));
    element.querySelector(".versions").hidden = versions.length < 2;
    choice.addEventListener("change", () => {
      show(card, name, versions[choice.selectedIndex]);
      refresh();
    });
    show(card, name, versions[0]);
    return card;
  };

  const drawBill = (bill) => {
    for (const { element, version } of cards.values()) {
      const state = bill.versions[version.label], status = element.querySelector(".status");
      status.textContent = `version ${version.version}: ${state?.state ?? "gone"}`;
      status.title = state?.reason ?? "";
      status.classList.toggle("not-done", state?.state !== "ready");
      const list = element.querySelector(".tiles"), tiles = bill.tiles[version.label] ?? [];
      if (list.children.length !== tiles.length) {
        list.replaceChildren(...tiles.map(() => make("li", { class: "tile" }, make("div", { class: "what" }), make("div", { class: "measured" }), make("div", { class: "predicted" }))));
      }
      tiles.forEach((tile, at) => [tile.what, tile.figure, tile.more].forEach((text, line) => {
        const place = list.children[at].children[line];
        if (place.textContent !== text) place.textContent = text;
      }));
    }
    byId("source").textContent = `Energy and money are derived from processor time: ${bill.source}.`;
  };

  const lock = () => {
    key = known = "";
    cards.clear();
    for (const section of main.querySelectorAll(".model")) section.remove();
    byId("source").textContent = news.textContent = "";
    locked.hidden = false;
    byId("key").focus();
  };

  const drawCards = async () => {
    const { models } = await (await ask("page/models")).json();
    locked.hidden = true;
    const told = new Map(models.map((model) => [model.name, JSON.stringify(model)]));
    for (const [name, card] of cards) {
      if (card.told === told.get(name)) continue; // what is written in its form stays
      card.element.remove();
      cards.delete(name);
    }
    for (const model of models) {
      if (cards.has(model.name)) continue;
      const card = cardOf(model);
      card.told = told.get(model.name);
      cards.set(model.name, card);
      main.append(card.element);
    }
    news.textContent = models.length ? "" : "No model is served yet.";
  };

  const refresh = async () => {
    try {
      const bill = await (await ask("page/bill")).json();
      const served = Object.keys(bill.tiles).sort().join("\n");
      if (served !== known || !cards.size) {
        await drawCards();
        known = served;
      }
      drawBill(bill);
      if (cards.size) news.textContent = "";
    } catch (error) {
      if (error.status === 401) {
        const tried = key;
        lock();
        if (tried) news.textContent = "The server does not know this key.";
      } else {
        const text = error.status ? error.message : "The server does not answer; it is asked again.";
        if (news.textContent !== text) news.textContent = text;
      }
    }
  };

  byId("unlock").addEventListener("submit", (event) => {
    event.preventDefault();
    key = byId("key").value.trim();
    byId("key").value = "";
    refresh();
  });
  // a page that nobody sees asks nothing, nor does one that waits for a key
  const turn = async () => {
    if (!document.hidden && locked.hidden) await refresh();
    setTimeout(turn, REFRESH_MS);
  };
  document.addEventListener("visibilitychange", () => { if (!document.hidden && locked.hidden) refresh(); });
  turn();
}
