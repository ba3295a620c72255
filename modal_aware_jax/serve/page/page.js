// The page: it asks the JSON interface and shows what comes as text, never as HTML.
"use strict";

const $ = (id) => document.getElementById(id);
const make = (tag, className, text) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
};
let picture = null; // the chosen file
let asked = 0; // of several answers the last one counts

function say(text, bad = false) {
  $("message").textContent = text;
  $("message").classList.toggle("bad", bad);
}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer.");
  }
  const answer = await response.json().catch(() => ({}));
  if (response.status === 401 && path !== "/login") showLogin();
  if (!response.ok) throw new Error(answer.error || `Status ${response.status}`);
  return answer;
}

const post = (path, fields) =>
  ask(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(fields),
  });

function showLogin() {
  $("login").hidden = false;
  $("main").hidden = true;
  $("token").focus();
}

function choose(file) {
  if (file && !file.type.startsWith("image/")) {
    say("That is no picture.", true);
    return;
  }
  if ($("preview").src) URL.revokeObjectURL($("preview").src);
  picture = file || null;
  $("chosen").hidden = !picture;
  if (picture) $("preview").src = URL.createObjectURL(picture);
  else $("preview").removeAttribute("src");
  if (!picture) $("image").value = "";
}

function card(item) {
  const figure = make("figure");
  const frame = make("div", "frame", item.picture ? undefined : "no picture");
  if (item.picture) {
    const image = make("img");
    image.src = item.picture;
    image.alt = item.caption || String(item.id);
    image.loading = "lazy";
    frame.append(image);
  }
  const words = make("figcaption");
  if (item.distance !== undefined)
    words.append(make("div", "distance", `distance ${item.distance}`));
  const caption = make("div", "caption", item.caption || String(item.id));
  caption.title = `${item.caption}\n${item.id}`;
  words.append(caption, make("div", "labels", item.labels.join(", ")));
  const buttons = make("div", "buttons");
  const like = make("button", "", "More like this");
  like.type = "button";
  like.onclick = () => go({ like: String(item.id) });
  const remove = make("button", "", "Remove");
  remove.type = "button";
  remove.onclick = () => take(item, remove);
  for (const button of [like, remove])
    button.setAttribute("aria-label", `${button.textContent}: ${caption.textContent}`);
  buttons.append(like, remove);
  figure.append(frame, words, buttons);
  const entry = make("li");
  entry.append(figure);
  return entry;
}

function show(items) {
  $("results").replaceChildren(...items.map(card));
}

// Removing asks once more, on the same button.
async function take(item, button) {
  if (button.textContent !== "Really?") {
    button.textContent = "Really?";
    button.setAttribute("aria-label", "Really remove it?");
    return;
  }
  try {
    await ask(`/items?id=${encodeURIComponent(item.id)}`, { method: "DELETE" });
    const entry = button.closest("li");
    const next = entry.nextElementSibling || entry.previousElementSibling;
    entry.remove();
    say(`${item.id} is removed.`);
    (next ? next.querySelector("button") : $("text")).focus();
    facts();
  } catch (error) {
    say(error.message, true);
  }
}

async function run(call, told) {
  const number = ++asked;
  say("Searching …");
  const started = performance.now();
  try {
    const found = await call();
    if (number !== asked) return;
    show(found.items);
    const time = Math.round(performance.now() - started);
    const unknown = found.unknown.length
      ? ` Not known to the model: ${found.unknown.join(", ")}.`
      : "";
    say(`${told(found.items.length)} (${time} ms).${unknown}`);
  } catch (error) {
    if (number === asked) say(error.message, true);
  }
}

const count = (n) => (n === 1 ? "1 item" : `${n} items`);

function search() {
  const text = $("text").value.trim();
  if (!picture) return run(() => post("/search", { text }), (n) => `${count(n)} for “${text}”`);
  const form = new FormData();
  form.append("text", text);
  form.append("image", picture);
  return run(
    () => ask("/search", { method: "POST", body: form }),
    (n) => `${count(n)} for the picture${text ? ` and “${text}”` : ""}`,
  );
}

// Searches by words and for likeness stand in the address: back and links work.
function go(query) {
  const hash = `#${new URLSearchParams(query)}`;
  if (hash === location.hash) follow();
  else location.hash = hash;
}

function follow() {
  const query = new URLSearchParams(location.hash.slice(1));
  if (query.has("like")) {
    const like = query.get("like");
    run(() => post("/search", { like }), (n) => `${count(n)} like ${like}`);
    return;
  }
  $("text").value = query.get("text") || "";
  if (query.has("text")) search();
  else run(() => ask("/items"), (n) => `Some of the collection: ${count(n)}`);
}

async function facts() {
  const status = await ask("/status");
  $("name").textContent = status.name ? `Search ${status.name}` : "Search";
  document.title = $("name").textContent;
  $("facts").textContent = `${status.items.toLocaleString("en")} items`;
  $("search").hidden = !status.can_encode;
  $("more").hidden = !status.can_encode;
}

async function start() {
  try {
    await facts();
    follow();
  } catch (error) {
    say(error.message, true);
  }
}

$("search").onsubmit = (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (picture) search();
  else if (text) go({ text });
  else say("Give words, a picture, or both.", true);
};
$("add").onsubmit = async (event) => {
  event.preventDefault();
  const form = new FormData();
  form.append("text", $("text").value.trim());
  if (picture) form.append("image", picture);
  for (const name of ["labels", "id"]) if ($(name).value.trim()) form.append(name, $(name).value.trim());
  try {
    const item = await ask("/items", { method: "POST", body: form });
    say(`${item.id} is added.`);
    $("results").prepend(card(item));
    $("add").reset();
    facts();
  } catch (error) {
    say(error.message, true);
  }
};
$("login").onsubmit = async (event) => {
  event.preventDefault();
  try {
    await post("/login", { token: $("token").value });
    $("login").hidden = true;
    $("main").hidden = false;
    $("token").value = "";
    start();
  } catch (error) {
    $("token").select();
    $("facts").textContent = error.message;
  }
};
$("image").onchange = () => choose($("image").files[0]);
$("clear").onclick = () => {
  choose(null);
  $("text").focus();
};
addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((f) => f.type.startsWith("image/"));
  if (file) choose(file);
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
addEventListener("dragleave", () => $("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  const file = event.dataTransfer.files[0];
  if (!file) return;
  choose(file);
  if (picture) search();
});
addEventListener("hashchange", follow);
start();
