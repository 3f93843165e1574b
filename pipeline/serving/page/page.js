// The page: asks for pictures, watches them in one event stream, shows them. Texts are shown as text, never as markup.
"use strict";

const MOST_CARDS = 48;
const SETTINGS = ["cfg_scale", "temperature", "top_k", "top_p"];
const of = (id) => document.getElementById(id);
const cards = new Map(); // id -> {root, said}
let stream = null, watched = "", classes = null;

function say(text, bad = false) {
  of("said").textContent = text;
  of("said").classList.toggle("bad", bad);
}

async function call(method, path, body) {
  let answer;
  try {
    const headers = body ? { "Content-Type": "application/json" } : {};
    answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  } catch {
    throw new Error("The server does not answer.");
  }
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error);
  return said;
}

function wish() {
  const asked = classes === null ? { prompt: of("prompt").value } : { class: Number(of("class").value) };
  for (const name of SETTINGS) asked[name] = Number(of(name).value);
  return asked;
}

async function draw(event) {
  event.preventDefault();
  const asked = wish(), seed = of("seed").value, count = Number(of("count").value);
  of("draw").disabled = true;
  say("");
  try {
    for (let n = 0; n < count; n++) {
      if (seed !== "") asked.seed = Number(seed) + n;
      add(await call("POST", "/generate", asked));
    }
    say(count === 1 ? "One picture is in the queue." : `${count} pictures are in the queue.`);
  } catch (error) {
    say(error.message, true);
  }
  of("draw").disabled = false;
  watch();
}

function add(said) {
  const root = of("card").content.firstElementChild.cloneNode(true);
  const part = (name) => root.querySelector(name);
  part(".text").textContent = classes === null ? said.text : `class ${said.text}`;
  part(".how").textContent = `seed ${said.seed} · guidance ${said.cfg_scale} · top-k ${said.top_k || "all"}` +
    (said.top_p < 1 ? ` · top-p ${said.top_p}` : "") + ` · temperature ${said.temperature}`;
  part(".cancel").addEventListener("click", () => cancel(said.id));
  part(".again").addEventListener("click", () => again(said));
  part(".cancel").setAttribute("aria-label", `Cancel: ${said.text.slice(0, 80)}`);
  part(".again").setAttribute("aria-label", `Use again: ${said.text.slice(0, 80)}`);
  root.dataset.id = said.id;
  of("pictures").prepend(root);
  of("empty").hidden = true;
  cards.set(said.id, { root, said });
  show(said);
  for (const [id, card] of cards) {
    if (cards.size <= MOST_CARDS) break;
    if (!open(card)) { card.root.remove(); cards.delete(id); }
  }
}

const open = (card) => card.said.state === "waiting" || card.said.state === "drawing";

function show(said) {
  const card = cards.get(said.id);
  if (!card) return;
  const { root } = card, part = (name) => root.querySelector(name), image = part("img");
  card.said = { ...card.said, ...said };
  root.className = `card ${said.state}`;
  if (said.png) image.src = `data:image/png;base64,${said.png}`;
  if (said.state === "done") {
    image.src = part(".save").href = said.picture;
    part(".save").download = `tessera-${said.seed}.png`;
  }
  image.alt = said.state === "done" ? card.said.text : "";
  part(".state").textContent = {
    waiting: said.ahead ? `waiting, ${said.ahead} ahead` : "waiting, next",
    drawing: said.rows ? `row ${said.rows} of ${said.of}` : "drawing",
    done: "done", cancelled: said.reason || "cancelled", failed: `failed: ${said.reason}`,
  }[said.state];
  part("progress").value = said.state === "done" ? 1 : said.rows ? said.rows / said.of : 0;
  part("progress").hidden = !open(card);
  if (!open(card) && document.activeElement === part(".cancel")) part(".again").hidden = false, part(".again").focus();
  part(".cancel").hidden = !open(card);
  part(".save").hidden = said.state !== "done";
  part(".again").hidden = open(card);
}

// One stream for all pictures: a browser opens six connections to a host at most.
function watch() {
  const ids = [...cards.values()].filter(open).map((card) => card.said.id).slice(0, 32).join(",");
  if (ids === watched && (stream === null || stream.readyState !== EventSource.CLOSED)) return;
  if (stream) stream.close();
  watched = ids;
  stream = ids ? new EventSource(`/events/${ids}`) : null;
  if (!stream) return refresh();
  for (const name of ["waiting", "drawing", "done", "cancelled", "failed"]) {
    stream.addEventListener(name, (event) => {
      const said = JSON.parse(event.data);
      show(said);
      if (name !== "waiting" && name !== "drawing" && ![...cards.values()].some((card) => open(card) && watched.includes(card.said.id))) watch();
    });
  }
  stream.addEventListener("error", () => {
    if (stream && stream.readyState === EventSource.CLOSED) lost();
  });
}

// The stream was refused: the server stopped, or has let some of these go. Ask for each once.
async function lost() {
  stream = null;
  watched = "";
  for (const card of [...cards.values()].filter(open)) {
    try {
      show(await call("GET", `/requests/${card.said.id}`));
    } catch (error) {
      show({ ...card.said, state: "failed", reason: error.message });
    }
  }
  watch();
}

async function cancel(id) {
  try {
    show(await call("DELETE", `/requests/${id}`));
    say("Cancelled.");
  } catch (error) {
    say(error.message, true);
  }
  watch();
}

function again(said) {
  of(classes === null ? "prompt" : "class").value = said.text;
  for (const name of SETTINGS) of(name).value = said[name];
  of("seed").value = said.seed;
  document.querySelector("details").open = true;
  of(classes === null ? "prompt" : "class").focus();
}

async function refresh() {
  const now = await call("GET", "/status").catch(() => null);
  if (!now) return of("status").textContent = "The server does not answer.";
  const speed = now.codes_per_second ? ` ${now.codes_per_second} codes a second.` : "";
  of("status").textContent = `${now.slots.taken} of ${now.slots.all} slots taken, ${now.queue.waiting} waiting, ` +
    `${now.requests.done} drawn since the start.${speed}`;
  return now;
}

async function start() {
  of("form").addEventListener("submit", draw);
  of("prompt").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    of("form").requestSubmit();
  });
  const now = await refresh();
  if (!now) return say("The server does not answer.", true);
  classes = now.model.classes;
  of("model").textContent = now.model.says;
  of("prompt").maxLength = now.prompt_length;
  of("prompt-field").hidden = classes !== null;
  of("prompt").required = classes === null;
  of("class-field").hidden = classes === null;
  of("class").max = (classes ?? 1) - 1;
  for (const name of SETTINGS) of(name).value = now.defaults[name];
  setInterval(refresh, 5000);
  of(classes === null ? "prompt" : "class").focus();
}

addEventListener("pagehide", () => { if (stream) stream.close(); });
start();
