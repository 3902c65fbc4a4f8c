// Counts the runs that are chosen, so that the button can say what it waits for; and keeps the list fresh while nobody uses it.
const { t } = speech;
const MOST = 6, AGAIN_MS = 4000;
const byId = (id) => document.getElementById(id);
const chosen = () => document.querySelectorAll('input[name="run"]:checked').length;

const count = () => {
  const button = byId("compare");
  if (!button) return;
  const many = chosen();
  button.disabled = many < 2 || many > MOST;
  speech.say(byId("chosen"), many < 2 ? t("Choose two or more.") : many > MOST ? t("Choose at most {most}.", { most: MOST }) : t("{count} chosen.", { count: many }));
};

const refresh = async () => {
  if (document.hidden || chosen() || document.activeElement !== document.body) return;
  try {
    const reply = await fetch(location.href, { cache: "no-store" });
    if (!reply.ok) return;
    const fresh = new DOMParser().parseFromString(await reply.text(), "text/html");
    speech.adopt(fresh);
    for (const id of ["now", "says", "rows"]) {
      const [old, next] = [byId(id), fresh.getElementById(id)];
      if (old && next && old.outerHTML !== next.outerHTML) old.replaceWith(next);
    }
  } catch { /* the server is gone; what was told stays */ }
};

document.addEventListener("change", count);
setInterval(refresh, AGAIN_MS);
count();
