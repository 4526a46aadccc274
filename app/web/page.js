// Asks for what has changed, and puts it in its place. The server has escaped all of it.
"use strict";

const EVERY = 2000;
const PATIENCE = 10000;
const shown = new Map();
let timer = 0;
let asking = false;

async function look() {
  clearTimeout(timer);
  if (asking || document.hidden) return;
  asking = true;
  try {
    const answer = await fetch("live", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    if (answer.status === 401) return location.reload();
    if (!answer.ok) throw new Error(String(answer.status));
    for (const [id, html] of Object.entries(await answer.json())) put(id, html);
    document.body.className = "live";
  } catch {
    const told = '<p class="notice">The page\'s own server does not answer; what is below is no longer live.</p>';
    document.body.className = "lost";
    put("notices", told);
  } finally {
    asking = false;
  }
  timer = setTimeout(look, EVERY);
}

// What is open stays open, what has the focus keeps it, and what somebody is marking is left alone.
function put(id, html) {
  const place = document.getElementById(id);
  if (!place || shown.get(id) === html || isMarked(place)) return;
  shown.set(id, html);
  const open = new Set(Array.from(place.querySelectorAll("details[open]"), (each) => each.dataset.key));
  const focused = place.contains(document.activeElement) ? nameOf(document.activeElement) : null;
  place.innerHTML = html;
  for (const each of place.querySelectorAll("details")) each.open = open.has(each.dataset.key);
  if (focused) Array.from(place.querySelectorAll("summary, button")).find((each) => nameOf(each) === focused)?.focus();
}

function nameOf(element) {
  return element.id || element.parentElement?.dataset.key || null;
}

function isMarked(place) {
  const selection = getSelection();
  return selection && !selection.isCollapsed && selection.anchorNode && place.contains(selection.anchorNode);
}

async function send(form, button) {
  const said = document.getElementById("said");
  // Not disabled: that would take the focus away from it.
  if (button.ariaDisabled === "true") return;
  button.ariaDisabled = "true";
  said.textContent = "";
  try {
    const answer = await fetch(form.action, {
      method: "POST",
      body: new URLSearchParams(new FormData(form)),
      headers: { accept: "application/json" },
    });
    said.textContent = (await answer.json()).message;
  } catch {
    said.textContent = "The page's own server does not answer; nothing is known of what was asked.";
  } finally {
    button.ariaDisabled = "false";
  }
  look();
}

document.getElementById("main").addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.target;
  if (form.dataset.ask && !confirm(form.dataset.ask)) return;
  send(form, event.submitter || form.querySelector("button"));
});
document.addEventListener("visibilitychange", look);
look();
