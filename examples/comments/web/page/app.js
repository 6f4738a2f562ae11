// The page's script: reads lists, keeps them live, sends what people write. All text from outside goes through
// textContent, never through HTML.
const $ = (id) => document.getElementById(id);
const threadID = (location.pathname.match(/^\/threads\/([a-z2-7]{26})$/) || [])[1];
const own = new Set(); // what this page wrote: not announced a second time
let token = sessionStorage.getItem("moderator") || "";
let moderator = false;

function announce(text) { $("announce").textContent = text; }
function live(text) { $("live").textContent = text; }

async function call(method, path, body, key) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key) headers["Idempotency-Key"] = key;
  if (token) headers["Authorization"] = "Bearer " + token;
  const res = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal: AbortSignal.timeout(20000) });
  const node = res.headers.get("X-Fleet-Node");
  if (node) $("node").textContent = node;
  const answer = await res.json().catch(() => ({ error: "unexpected answer (" + res.status + ")" }));
  if (!res.ok) {
    const why = (answer.problems || []).map((p) => p.field + ": " + p.text).join("; ");
    throw Object.assign(new Error(why || answer.error), { status: res.status });
  }
  return answer;
}

function el(name, cls, text) {
  const e = document.createElement(name);
  if (cls) e.className = cls;
  if (text !== undefined) e.textContent = text;
  return e;
}

function button(text, label, act) {
  const b = el("button", "small", text);
  b.type = "button";
  b.setAttribute("aria-label", label);
  b.addEventListener("click", async () => {
    b.disabled = true;
    try { await act(); } catch (e) { announce("That did not work: " + e.message); }
    b.disabled = false;
    b.focus();
  });
  return b;
}

function when(iso) {
  const t = el("time", "", new Date(iso).toLocaleString());
  t.dateTime = iso;
  return t;
}

// A List shows items by name, one element each, kept in order from the newest; of two sightings of an item the one
// with the higher revision wins.
class List {
  constructor(element, empty, more, time, render) {
    Object.assign(this, { element, empty, more, time, render, items: new Map(), next: "" });
  }
  put(item, fresh) {
    const old = this.items.get(item.id);
    if (old && old.item.revision >= item.revision) return false;
    // What belongs below the part of the list that was read comes with that part.
    if (!old && this.next && item[this.time] < this.oldest) return false;
    const node = this.render(item, old && old.item);
    this.items.set(item.id, { item, node });
    if (old && old.item[this.time] === item[this.time]) {
      const focused = old.node.contains(document.activeElement) && document.activeElement.dataset.act;
      old.node.replaceWith(node);
      if (focused) node.querySelector(`[data-act="${focused}"]`)?.focus();
    } else {
      old?.node.remove();
      const below = [...this.items.values()].filter((x) => x.node !== node && x.item[this.time] <= item[this.time] && x.node.isConnected)
        .sort((a, b) => (a.item[this.time] < b.item[this.time] ? 1 : -1))[0];
      this.element.insertBefore(node, below ? below.node : null);
    }
    if (fresh) node.classList.add("fresh");
    this.empty.hidden = this.items.size > 0;
    return !old;
  }
  page(items, next) {
    items.forEach((i) => this.put(i, false));
    this.next = next || "";
    this.oldest = items.length ? items[items.length - 1][this.time] : "";
    this.more.hidden = !this.next;
    this.empty.hidden = this.items.size > 0;
  }
}

function renderThread(t) {
  const li = el("li");
  if (t.hidden && !t.title) { li.hidden = true; return li; }
  const a = el("a", "", t.title);
  a.href = "/threads/" + t.id;
  const about = el("p", "about", (t.hidden ? "hidden, " : "") + "by " + t.author + ", active ");
  about.append(when(t.active_at));
  li.append(a, about);
  return li;
}

function renderComment(c, old) {
  if (c.hidden && !c.text && moderator && old) c = { ...c, text: old.text, author: old.author };
  const li = el("li", c.hidden ? "hidden-comment" : "");
  const about = el("p", "about", (c.author ? "by " + c.author + " on " + c.node : "on " + c.node) + ", ");
  about.append(when(c.created_at));
  li.append(about, el("p", "body", c.text || "Hidden by a moderator."));
  const votes = el("div", "votes");
  const count = el("output", "", String(c.votes));
  count.setAttribute("aria-label", c.votes + " votes");
  const name = "the comment by " + (c.author || "someone");
  const up = button("▲", "Vote up " + name, () => vote(c.id, 1));
  const down = button("▼", "Vote down " + name, () => vote(c.id, -1));
  up.dataset.act = "up"; down.dataset.act = "down";
  if (!c.hidden) votes.append(up, count, down);
  if (moderator) {
    const hide = button(c.hidden ? "Show" : "Hide", (c.hidden ? "Show " : "Hide ") + name, () => hideComment(c.id, !c.hidden));
    hide.dataset.act = "hide";
    votes.append(hide);
  }
  li.append(votes);
  return li;
}

const threads = new List($("threads"), $("no-threads"), $("more-threads"), "active_at", renderThread);
const comments = new List($("comments"), $("no-comments"), $("more-comments"), "created_at", renderComment);

async function vote(id, delta) {
  const c = await call("POST", "/api/comments/" + id + "/votes", { delta });
  comments.put(c, false);
  announce("Counted. The comment has " + c.votes + " votes.");
}

async function hideComment(id, hidden) {
  comments.put(await call("PUT", "/api/comments/" + id + "/hidden", { hidden }), false);
  announce(hidden ? "The comment is hidden." : "The comment is shown again.");
}

// form sends a form's fields once, however often it is submitted: the key stays until an answer came.
function form(id, errorID, send) {
  const f = $(id), error = $(errorID), submit = f.querySelector("button");
  let key = crypto.randomUUID ? crypto.randomUUID() : String(Math.random()).slice(2);
  const fresh = () => { key = crypto.randomUUID ? crypto.randomUUID() : String(Math.random()).slice(2); };
  f.addEventListener("input", fresh);
  f.addEventListener("submit", async (e) => {
    e.preventDefault();
    if (submit.disabled) return;
    submit.disabled = true;
    error.textContent = "";
    try { await send(f, key); fresh(); } catch (err) { error.textContent = err.message; }
    submit.disabled = false;
  });
  f.addEventListener("keydown", (e) => {
    if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) f.requestSubmit();
  });
}

const remember = (name) => { try { localStorage.setItem("author", name); } catch { /* private mode */ } };
const remembered = () => { try { return localStorage.getItem("author") || ""; } catch { return ""; } };

form("new-thread", "new-thread-error", async (f, key) => {
  const t = await call("POST", "/api/threads", { title: f.title.value, author: f.author.value }, key);
  remember(f.author.value);
  location.assign("/threads/" + t.id);
});

form("new-comment", "new-comment-error", async (f, key) => {
  const c = await call("POST", "/api/threads/" + threadID + "/comments", { author: f.author.value, text: f.text.value }, key);
  remember(f.author.value);
  own.add(c.id);
  comments.put(c, true);
  f.text.value = "";
  f.text.focus();
  announce("Your comment is posted.");
});

form("moderate", "moderate-error", async () => {
  token = $("token").value;
  const about = await call("GET", "/api/about");
  if (!about.moderator) { token = ""; throw new Error("this token is not the moderator's"); }
  sessionStorage.setItem("moderator", token);
  location.reload();
});

$("hide-thread").addEventListener("click", async () => {
  const hidden = $("hide-thread").dataset.hidden !== "true";
  try { showThread(await call("PUT", "/api/threads/" + threadID + "/hidden", { hidden })); } catch (e) { announce(e.message); }
});

function showThread(t) {
  document.title = t.title + " – Comments";
  $("thread-title").textContent = t.title;
  $("thread-about").textContent = (t.hidden ? "hidden, " : "") + "opened by " + t.author + " on " + t.node;
  $("hide-thread").hidden = !moderator;
  $("hide-thread").dataset.hidden = String(!!t.hidden);
  $("hide-thread").textContent = t.hidden ? "Show this thread" : "Hide this thread";
}

// watch keeps a stream open; each time it is (re)established, load() reads what was missed.
function watch(path, kind, load, put) {
  let wait = 1000;
  const again = (source) => {
    source.close();
    live("reconnecting…");
    setTimeout(() => watchOnce(), wait + Math.random() * 500);
    wait = Math.min(wait * 2, 15000);
  };
  const watchOnce = () => {
    const source = new EventSource(path);
    source.addEventListener("hello", async (e) => {
      try {
        await load();
        wait = 1000;
        live("Live from " + JSON.parse(e.data).node + ".");
      } catch (err) {
        if (err.status === 404) { source.close(); missing(); } else again(source);
      }
    });
    source.addEventListener(kind, (e) => put(JSON.parse(e.data)));
    source.addEventListener("bye", () => again(source));
    source.onerror = () => again(source);
  };
  watchOnce();
}

function missing() {
  $("thread").hidden = true;
  $("missing").hidden = false;
  live("");
}

function more(list, path, key) {
  list.more.addEventListener("click", async () => {
    list.more.disabled = true;
    try {
      const p = await call("GET", path + "?before=" + encodeURIComponent(list.next));
      list.page(p[key], p.next);
    } catch (e) { announce(e.message); }
    list.more.disabled = false;
  });
}

async function startList() {
  $("list").hidden = false;
  more(threads, "/api/threads", "threads");
  const load = async () => { const p = await call("GET", "/api/threads"); firstPage(threads, p.threads, p.next); };
  watch("/api/events", "thread", load, (t) => {
    if (threads.put(t, true) && !t.hidden && !own.has(t.id)) announce("A new thread: " + t.title);
  });
}

async function startThread() {
  try { showThread(await call("GET", "/api/threads/" + threadID)); } catch (e) {
    if (e.status === 404) return missing();
    announce(e.message);
  }
  $("thread").hidden = false;
  const path = "/api/threads/" + threadID;
  more(comments, path + "/comments", "comments");
  const load = async () => {
    const [t, p] = await Promise.all([call("GET", path), call("GET", path + "/comments")]);
    showThread(t);
    firstPage(comments, p.comments, p.next);
  };
  watch(path + "/events", "comment", load, (c) => {
    if (comments.put(c, true) && !c.hidden && !own.has(c.id)) announce("A new comment by " + c.author + ".");
  });
}

// firstPage merges the newest part, on the first load and after each reconnect; only the first load tells where older
// parts begin.
function firstPage(list, items, next) {
  if (list.items.size === 0) return list.page(items, next);
  items.forEach((i) => list.put(i, false));
}

for (const id of ["thread-author", "comment-author"]) $(id).value = remembered();
try {
  const about = await call("GET", "/api/about");
  moderator = about.moderator;
  $("moderation").hidden = !about.moderation;
} catch (e) { announce(e.message); }
if (location.pathname === "/") startList();
else if (threadID) startThread();
else missing();
