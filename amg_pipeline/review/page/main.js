// The review page: what keys, clicks and sliders do.
import { applied, History, inverse, isMerge, mergeName, setStandings, standing } from "/page/decisions.js";
import { Filters } from "/page/filters.js";
import { MaskList, describe, titleOf } from "/page/list.js";
import * as source from "/page/source.js";
import { Stage } from "/page/stage.js";

const $ = (id) => document.getElementById(id);

let run = null;
let image = null;
let number = 0;
let opening = 0;
/** Names of picked masks; the mask that keys mean; the masks under the pointer. */
let picked = new Set();
let active = null;
let under = [];
let shown = [];
let history = null;
/** Decisions that are not saved yet, in order. */
const unsaved = [];
let isSending = false;

const stage = new Stage($("stage"), { hover, click, zoom: (factor) => ($("zoom").textContent = `${Math.round(factor * 100)} %`) });
const filters = new Filters($("sliders"), () => {
  isSliding = true;
  schedule();
});
const list = new MaskList($("masks"), {
  pick: (mask, event) => pick(mask, { adds: event.shiftKey || event.ctrlKey || event.metaKey }),
  mean: (mask) => mean(mask),
});

// Painting: at most once a frame. The list follows when the hand rests.

let isScheduled = false;
let isSliding = false;
let listTimer = 0;
function schedule() {
  if (!isScheduled) requestAnimationFrame(paint);
  isScheduled = true;
}

function paint() {
  isScheduled = false;
  if (!image) return;
  performance.mark("paint-begin");
  const passes = filters.test(image);
  const parts = new Set(image.unions.flatMap((union) => union.parts));
  shown = [...image.unions, ...image.masks.filter((mask) => !parts.has(mask.index))].filter(passes);
  stage.paint(shown, (mask) => standing(image.review, mask.name).decision);
  const there = new Set(shown.map((mask) => mask.name));
  if (active && !there.has(active.name)) active = null;
  picked = new Set([...picked].filter((name) => there.has(name)));
  under = under.filter((mask) => there.has(mask.name));
  const all = image.masks.length - parts.size + image.unions.length;
  $("shown").textContent = shown.length === all ? `${all}` : `${shown.length} of ${all} shown`;
  markAll({ lists: false });
  clearTimeout(listTimer);
  if (isSliding) listTimer = setTimeout(updateList, 120);
  else updateList();
  isSliding = false;
  performance.measure("paint", "paint-begin");
}

function updateList() {
  if (!image) return;
  list.update(new Set(shown), (mask) => standing(image.review, mask.name));
  list.mark(picked, active, { scroll: false });
}

function markAll({ scroll = false, lists = true } = {}) {
  const masks = shown.filter((mask) => picked.has(mask.name));
  stage.mark(masks, active);
  if (lists) list.mark(picked, active, { scroll });
  $("picked").textContent = picked.size ? `${picked.size} picked` : "none";
  const isIdle = !picked.size && !active;
  for (const id of ["accept", "reject", "clear"]) $(id).disabled = isIdle;
  $("merge").disabled = picked.size < 2;
}

// Images

async function open(wanted, { said = "" } = {}) {
  const mine = ++opening;
  number = Math.max(0, Math.min(run.num_images - 1, wanted));
  $("number").value = number + 1;
  location.replace(`#${number + 1}`);
  const loading = source.loadImage(number);
  let found;
  try {
    found = await loading;
  } catch (error) {
    if (mine !== opening) return;
    image = null;
    $("image-id").textContent = `Image ${number + 1}`;
    trouble(error.message);
    return;
  }
  if (mine !== opening) return;
  image = found;
  picked.clear();
  [active, under] = [null, []];
  hideTip();
  $("image-id").textContent = image.image_id;
  $("image-id").title = image.image_id;
  document.title = `${image.image_id} · review`;
  stage.open(image);
  filters.open(image);
  list.open([...image.unions, ...image.masks]);
  paint();
  updateList();
  performance.mark("masks-painted");
  showProgress();
  say(said || `Image ${number + 1} of ${run.num_images}, ${image.image_id}, ${image.masks.length} masks`);
  trouble(image.status === "ok" ? "" : `This image has no masks: ${image.status.replaceAll("_", " ")}.`);
  const { url, reason } = await image.picture;
  if (mine !== opening) return;
  if (url) stage.setPicture(url);
  else if (image.status === "ok") trouble(`The image itself cannot be shown. ${reason}`);
  performance.mark("picture-shown");
  for (const near of [number + 1, number - 1]) {
    if (near >= 0 && near < run.num_images) source.loadImage(near).catch(() => {});
  }
}

async function openNext(step = 1) {
  try {
    await saved();
    const found = await source.nextOpen(number, step);
    if (found === null) say("Every image is reviewed", { aloud: true });
    else await open(found);
  } catch (error) {
    say(error.message, { aloud: true });
  }
}

function showProgress() {
  $("done").textContent = run.num_done.toLocaleString("en");
  $("bar").value = run.num_done;
  if (!image) return;
  const size = image.width ? `${image.width} × ${image.height} · ` : "";
  $("facts").textContent = `${size}${image.masks.length} masks${image.review.is_done ? " · reviewed ✓" : ""}`;
  $("finish-text").textContent = image.review.is_done ? "Next open image" : "Reviewed, next open image";
}

function trouble(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

// Pointing and picking

function mean(mask, { scroll = false } = {}) {
  if (active === mask) return;
  active = mask;
  markAll({ scroll });
}

function hover(masks, event) {
  if (!image) return;
  const isSame = masks.length === under.length && masks.every((mask, index) => mask === under[index]);
  if (!isSame) {
    under = masks;
    mean(masks[0] ?? null);
  }
  if (under.length) showTip(event);
  else hideTip();
}

function click(masks, event) {
  if (!masks.length) {
    if (picked.size) pickNone();
    return;
  }
  const adds = event.shiftKey || event.ctrlKey || event.metaKey;
  // A second click on the same place takes the next larger mask.
  const index = masks.findIndex((mask) => picked.has(mask.name));
  const again = !adds && picked.size === 1 && index >= 0 && masks.length > 1;
  pick(again ? masks[(index + 1) % masks.length] : (masks.includes(active) && adds ? active : masks[0]), { adds });
  under = masks;
  showTip(event);
}

function pick(mask, { adds }) {
  const was = picked.has(mask.name);
  if (!adds) picked = new Set(was && picked.size === 1 ? [] : [mask.name]);
  else if (was) picked.delete(mask.name);
  else picked.add(mask.name);
  active = mask;
  markAll();
  say(`${titleOf(mask)} ${picked.has(mask.name) ? "picked" : "no longer picked"}, ${picked.size} picked`);
}

function pickNone() {
  picked.clear();
  markAll();
}

function step(direction) {
  const masks = list.masks;
  if (!masks.length) return;
  const index = masks.indexOf(active);
  const next = index < 0 ? (direction > 0 ? 0 : masks.length - 1) : index + direction;
  mean(masks[Math.max(0, Math.min(masks.length - 1, next))], { scroll: true });
  say(describe(active, standing(image.review, active.name)));
}

function stepUnder(direction) {
  if (!under.length) return step(direction);
  const index = Math.max(0, under.indexOf(active));
  mean(under[(index + direction + under.length) % under.length], { scroll: true });
  showTip();
}

let tipPlace = { clientX: 0, clientY: 0 };
function showTip(event = tipPlace) {
  tipPlace = { clientX: event.clientX, clientY: event.clientY };
  if (!active) return hideTip();
  const tip = $("tip");
  const { decision, tags } = standing(image.review, active.name);
  const rows = [
    [titleOf(active), under.length > 1 ? `${under.indexOf(active) + 1} of ${under.length} here` : ""],
    ["predicted IoU", active.iou?.toFixed(3) ?? "–"],
    ["stability", active.stability?.toFixed(3) ?? "–"],
    ["area", `${active.area.toLocaleString("en")} px`],
    ...(decision ? [["decision", decision]] : []),
    ...(tags.length ? [["tags", tags.join(", ")]] : []),
  ];
  tip.replaceChildren(
    ...rows.flatMap(([name, value]) => {
      const cells = [document.createElement("span"), document.createElement("span")];
      [cells[0].textContent, cells[1].textContent] = [name, value];
      return cells;
    }),
  );
  tip.hidden = false;
  const box = $("stage").getBoundingClientRect();
  const x = Math.min(tipPlace.clientX - box.left + 16, box.width - tip.offsetWidth - 8);
  const y = Math.min(tipPlace.clientY - box.top + 18, box.height - tip.offsetHeight - 8);
  tip.style.transform = `translate(${Math.max(8, x)}px, ${Math.max(8, y)}px)`;
}

function hideTip() {
  $("tip").hidden = true;
}

// Decisions

const targets = () => (picked.size ? [...picked] : active ? [active.name] : []);
const count = (number, noun = "mask") => `${number} ${noun}${number === 1 ? "" : "s"}`;

/** Records a decision about the image that is open. */
function record(change, said) {
  const back = inverse(change, image.review);
  history.add({ number, imageId: image.image_id, there: change, back, said });
  send(number, image.image_id, change);
  say(said, { aloud: true });
}

function decide(decision) {
  const names = targets();
  if (!names.length) return;
  const wasPicked = picked.size > 0;
  const change = setStandings(names, (name) => ({ decision, tags: standing(image.review, name).tags }));
  record(change, `${count(names.length)} ${decision}`);
  picked.clear();
  // The hand stays on the keys: on to the next one.
  if (!wasPicked && !under.length) step(1);
  schedule();
}

/** Takes decisions back; a union falls apart into the masks it is of. */
function undecide() {
  const names = targets();
  if (!names.length) return;
  const change = {};
  for (const name of names) {
    if (isMerge(name)) (change.merges ??= {})[name] = null;
    else (change.masks ??= {})[name] = { decision: null, tags: [] };
  }
  record(change, `${count(names.length)} undecided`);
  picked.clear();
  schedule();
}

function merge() {
  if (picked.size < 2) return;
  const names = [...picked];
  // A union of unions is one of all their parts, and takes their place.
  const parts = names.flatMap((name) => name.split("+"));
  const tags = [...new Set(names.flatMap((name) => standing(image.review, name).tags))];
  const merges = Object.fromEntries(names.filter(isMerge).map((name) => [name, null]));
  merges[mergeName(parts)] = { decision: "accepted", tags };
  picked.clear();
  record({ merges }, `${count(names.length)} merged and accepted`);
}

function tag(text) {
  const names = targets();
  const word = text.trim();
  if (!names.length || !word) return;
  const all = names.every((name) => standing(image.review, name).tags.includes(word));
  const change = setStandings(names, (name) => {
    const { decision, tags } = standing(image.review, name);
    return { decision, tags: all ? tags.filter((one) => one !== word) : [...new Set([...tags, word])] };
  });
  record(change, `${count(names.length)} ${all ? "no longer " : ""}tagged ${word}`);
  if (!run.tags.includes(word)) run.tags.push(word);
  showTags();
  schedule();
}

function decideShown(decision) {
  const names = shown.map((mask) => mask.name).filter((name) => !standing(image.review, name).decision);
  if (!names.length) return say("Nothing that is shown is undecided", { aloud: true });
  record(
    setStandings(names, (name) => ({ decision, tags: standing(image.review, name).tags })),
    `${count(names.length)} ${decision}`,
  );
  picked.clear();
  schedule();
}

async function finish() {
  if (!image) return;
  if (!image.review.is_done && image.status === "ok") record({ is_done: true }, "Image reviewed");
  await openNext();
}

async function travel(way) {
  if (!(way === "undo" ? history.undoable : history.redoable)) return;
  const step = history[way]();
  showHistory();
  await saved().catch(() => {});
  if (step.number !== number || !image) await open(step.number);
  if (image?.image_id !== step.imageId) {
    history.forget();
    showHistory();
    return say("The run has changed, and what was done before cannot be undone", { aloud: true });
  }
  send(step.number, step.imageId, step.change);
  say(`${way === "undo" ? "Undone" : "Done again"}: ${step.said}`, { aloud: true });
}

/** Puts a decision into what is shown at once, and sends it when those before it are saved. */
function send(where, imageId, change) {
  image.review = applied(image.review, change);
  if (change.is_done !== undefined && change.is_done !== null) showProgress();
  unsaved.push({ where, imageId, change, about: image });
  showHistory();
  schedule();
  flush();
}

const waiting = [];
/** Waits until nothing is unsaved; fails if it cannot be saved. */
function saved() {
  if (!unsaved.length) return Promise.resolve();
  return new Promise((resolve, reject) => waiting.push({ resolve, reject }));
}

async function flush() {
  if (isSending) return;
  isSending = true;
  showSaved("Saving …");
  let failure = null;
  while (unsaved.length && !failure) {
    const { where, imageId, change, about } = unsaved[0];
    try {
      const answer = await source.sendChange(where, imageId, change);
      unsaved.shift();
      run.num_done = answer.num_done;
      await settle(about, answer.review);
    } catch (error) {
      failure = error;
      // What the server will never take must not stop what follows.
      if (error.status >= 400 && error.status < 500) {
        unsaved.shift();
        await reload(about);
      }
    }
  }
  isSending = false;
  if (failure) {
    showSaved(`Not saved: ${failure.message}`, { failed: unsaved.length > 0 });
    say(`Not saved. ${failure.message}`, { aloud: true });
    for (const { reject } of waiting.splice(0)) reject(failure);
  } else {
    showSaved("All decisions are saved");
    for (const { resolve } of waiting.splice(0)) resolve();
  }
  showProgress();
}

/** Takes over how the server says an image stands. */
async function settle(about, review) {
  if (unsaved.some((entry) => entry.about === about)) return;
  about.review = review;
  const before = about.unions.map((union) => union.name).join();
  if (Object.keys(review.merges).sort().join() !== before.split(",").filter(Boolean).sort().join()) {
    about.unions = await source.loadUnions(review, about);
    if (about === image) {
      list.open([...image.unions, ...image.masks]);
      active = null;
      paint();
      updateList();
    }
  }
  if (about === image) schedule();
}

async function reload(about) {
  source.forget(about.number);
  if (about === image) await open(number);
}

// What is said, and where

function say(text, { aloud = false } = {}) {
  $("said").textContent = text;
  if (!aloud) return;
  clearTimeout(say.timer);
  const toast = $("toast");
  toast.textContent = text;
  toast.classList.add("visible");
  say.timer = setTimeout(() => toast.classList.remove("visible"), 2200);
}

function showSaved(text, { failed = false } = {}) {
  $("saved-text").textContent = text;
  $("saved").classList.toggle("failed", text.startsWith("Not"));
  $("retry").hidden = !failed;
}

function showHistory() {
  $("undo").disabled = !history.undoable;
  $("redo").disabled = !history.redoable;
}

function showTags() {
  $("tags").replaceChildren(
    ...run.tags.map((word) => Object.assign(document.createElement("option"), { value: word })),
  );
}

function peek() {
  const isHidden = $("view").classList.toggle("bare");
  $("peek").setAttribute("aria-pressed", isHidden);
}

function goToNumber() {
  const wanted = Number.parseInt($("number").value, 10);
  if (Number.isFinite(wanted)) open(wanted - 1);
  else $("number").value = number + 1;
}

// Finding images by name

let findTimer = 0;
let findIndex = -1;
function closeFound() {
  $("found").hidden = true;
  $("find").setAttribute("aria-expanded", "false");
  findIndex = -1;
}

function lookUp() {
  clearTimeout(findTimer);
  const text = $("find").value.trim();
  if (!text) return closeFound();
  findTimer = setTimeout(async () => {
    const images = await source.find(text).catch(() => []);
    if ($("find").value.trim() !== text) return;
    const items = images.map((entry, index) => {
      const item = document.createElement("li");
      item.id = `found-${index}`;
      item.setAttribute("role", "option");
      item.textContent = entry.image_id;
      item.number = entry.number;
      return item;
    });
    if (!items.length) {
      const none = document.createElement("li");
      none.textContent = "No image has this in its name";
      none.className = "none";
      items.push(none);
    }
    $("found").replaceChildren(...items);
    $("found").hidden = false;
    $("find").setAttribute("aria-expanded", "true");
    findIndex = -1;
  }, 120);
}

function goToFound(item) {
  if (item?.number === undefined) return;
  closeFound();
  $("find").value = "";
  $("find").blur();
  open(item.number);
}

function onFindKey(event) {
  const items = [...$("found").querySelectorAll("[role=option]")];
  if (event.key === "Escape") {
    closeFound();
    $("find").blur();
  } else if (event.key === "Enter") {
    goToFound(items[Math.max(0, findIndex)]);
  } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    findIndex = Math.max(0, Math.min(items.length - 1, findIndex + (event.key === "ArrowDown" ? 1 : -1)));
    items.forEach((item, index) => item.setAttribute("aria-selected", index === findIndex));
    if (items[findIndex]) $("find").setAttribute("aria-activedescendant", items[findIndex].id);
  }
}

// Keys

const KEYS = {
  ArrowLeft: () => open(number - 1),
  ArrowRight: () => open(number + 1),
  ArrowUp: () => step(-1),
  ArrowDown: () => step(1),
  Enter: finish,
  n: () => openNext(),
  N: () => openNext(-1),
  " ": () => active && pick(active, { adds: true }),
  Escape: () => (picked.size ? pickNone() : mean(null)),
  a: () => decide("accepted"),
  r: () => decide("rejected"),
  A: () => decideShown("accepted"),
  R: () => decideShown("rejected"),
  u: undecide,
  m: merge,
  t: () => $("tag").focus(),
  z: () => travel("undo"),
  Z: () => travel("redo"),
  y: () => travel("redo"),
  h: peek,
  "[": () => stepUnder(-1),
  "]": () => stepUnder(1),
  "+": () => stage.zoomIn(),
  "=": () => stage.zoomIn(),
  "-": () => stage.zoomOut(),
  0: () => stage.fit(),
  "/": () => $("find").focus(),
  "?": () => $("keys").showModal(),
};
const OF_SLIDERS = new Set(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"]);

document.addEventListener("keydown", (event) => {
  const target = event.target;
  if (!run || $("keys").open || event.altKey || target.matches("input:not([type=range])")) return;
  if (event.ctrlKey || event.metaKey) {
    if (!["z", "Z", "y"].includes(event.key)) return;
  } else if (target.matches("input[type=range]") && OF_SLIDERS.has(event.key)) {
    return;
  } else if (target.matches("button, a") && (event.key === "Enter" || event.key === " ")) {
    return;
  }
  const act = KEYS[event.key];
  if (!act || (!image && !event.key.startsWith("Arrow"))) return;
  event.preventDefault();
  act();
});

// What the page consists of

for (const [id, act] of Object.entries({
  previous: () => open(number - 1),
  next: () => open(number + 1),
  undo: () => travel("undo"),
  redo: () => travel("redo"),
  help: () => $("keys").showModal(),
  "keys-close": () => $("keys").close(),
  peek,
  "zoom-in": () => stage.zoomIn(),
  "zoom-out": () => stage.zoomOut(),
  fit: () => stage.fit(),
  accept: () => decide("accepted"),
  reject: () => decide("rejected"),
  clear: undecide,
  merge,
  "accept-shown": () => decideShown("accepted"),
  "reject-shown": () => decideShown("rejected"),
  finish,
  retry: flush,
  reset: () => {
    filters.reset();
    schedule();
  },
})) {
  $(id).addEventListener("click", act);
}

$("tag-form").addEventListener("submit", (event) => {
  event.preventDefault();
  tag($("tag").value);
  $("tag").value = "";
  $("masks").focus();
});
$("tag").addEventListener("keydown", (event) => event.key === "Escape" && $("masks").focus());
$("number").addEventListener("change", goToNumber);
$("number").addEventListener("keydown", (event) => event.key === "Enter" && $("number").blur());
$("find").addEventListener("input", lookUp);
$("find").addEventListener("keydown", onFindKey);
$("find").addEventListener("blur", () => setTimeout(closeFound, 150));
$("found").addEventListener("pointerdown", (event) => goToFound(event.target.closest("[role=option]")));
addEventListener("beforeunload", (event) => unsaved.length && event.preventDefault());
addEventListener("hashchange", () => {
  const wanted = Number.parseInt(location.hash.slice(1), 10) - 1;
  if (run && Number.isFinite(wanted) && wanted !== number) open(wanted);
});

try {
  run = await source.describeRun();
  history = new History(`amg-review-${run.fingerprint}-${run.reviewer}`);
  $("total").textContent = $("all").textContent = run.num_images.toLocaleString("en");
  $("bar").max = run.num_images;
  $("reviewer").textContent = run.reviewer;
  $("reviewer").title = run.title;
  showHistory();
  showTags();
  const wanted = Number.parseInt(location.hash.slice(1), 10);
  await open(Number.isFinite(wanted) ? wanted - 1 : 0);
} catch (error) {
  trouble(error.message);
  $("image-id").textContent = "The review cannot be shown";
}
