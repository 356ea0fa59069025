"use strict";
// Shows one section of the gallery at a time, the scores of a mask under the pointer, and an image
// with all of its masks. Without it, the page is complete but for these.
(() => {
  document.documentElement.classList.add("has-script");
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

  // The masks of an image: a script beside the page calls back with them, since a page from a disk
  // may not fetch anything.
  const pending = new Map();
  window.amgMasks = (key, data) => pending.get(key)?.resolve(unpack(data));

  function load(key) {
    if (!pending.has(key)) {
      const entry = {};
      entry.promise = new Promise((resolve) => {
        entry.resolve = resolve;
        const script = document.createElement("script");
        script.src = `images/${key}-masks.js`;
        script.onerror = () => resolve(null);
        document.head.append(script);
      });
      pending.set(key, entry);
    }
    return pending.get(key).promise;
  }

  function unpack(data) {
    data.masks = data.masks.map((row, index) => {
      const [left, top, width, height, counts, iou, stability, area, x, y] = row;
      const spans = toSpans(counts, width, height);
      return { index, left, top, width, height, spans, iou, stability, area, x, y };
    });
    return data;
  }

  // COCO's compressed run lengths, column by column: for each column its spans [from, to).
  function toSpans(counts, width, height) {
    const columns = Array.from({ length: width }, () => []);
    const runs = [];
    for (let at = 0; at < counts.length; ) {
      let value = 0, shift = 0, more = true;
      while (more) {
        const code = counts.charCodeAt(at++) - 48;
        value |= (code & 31) << shift;
        shift += 5;
        more = (code & 32) !== 0;
        if (!more && code & 16) value |= -1 << shift;
      }
      if (runs.length > 2) value += runs[runs.length - 2];
      runs.push(value);
    }
    let position = 0;
    runs.forEach((run, number) => {
      if (number % 2) {
        for (let from = position, end = position + run; from < end; ) {
          const column = Math.floor(from / height);
          const to = Math.min(end, (column + 1) * height);
          columns[column].push([from - column * height, to - column * height]);
          from = to;
        }
      }
      position += run;
    });
    return columns;
  }

  // The smallest mask under a point of the picture, or none; later masks are smaller.
  function maskAt(data, x, y) {
    for (let i = data.masks.length - 1; i >= 0; i--) {
      const mask = data.masks[i];
      const spans = mask.spans[x - mask.left];
      if (spans && spans.some(([from, to]) => y - mask.top >= from && y - mask.top < to)) return i;
    }
    return -1;
  }

  // The same colours as the pictures'.
  function colourOf(index) {
    const hue = (0.58 + index * 0.618033988749895) % 1;
    const light = [0.5, 0.62, 0.42][index % 3];
    const reach = [0.95, 0.8][index % 2] * Math.min(light, 1 - light);
    return [0, 8, 4].map((n) => {
      const k = (n + hue * 12) % 12;
      return Math.round(255 * (light - reach * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
    });
  }

  // Where an image with `object-fit: contain` really is, in the frame of its parent.
  function place(image, canvas, data) {
    const box = image.getBoundingClientRect(), parent = image.parentElement.getBoundingClientRect();
    const scale = Math.min(box.width / data.width, box.height / data.height);
    const width = data.width * scale, height = data.height * scale;
    const left = box.left - parent.left + (box.width - width) / 2;
    const top = box.top - parent.top + (box.height - height) / 2;
    Object.assign(canvas.style, {
      left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px`,
    });
    canvas.width = Math.max(1, Math.round(width * devicePixelRatio));
    canvas.height = Math.max(1, Math.round(height * devicePixelRatio));
  }

  function contextOf(canvas) {
    return canvas.getContext("2d", { willReadFrequently: true });
  }

  // The pixels of a canvas that masks may cover.
  function regionOf(data, masks, { width, height }) {
    const across = width / data.width, down = height / data.height;
    const least = (side, factor) => Math.floor(Math.min(...masks.map(side)) * factor);
    const most = (side, factor) => Math.ceil(Math.max(...masks.map(side)) * factor);
    const left = Math.max(0, least((m) => m.left, across));
    const top = Math.max(0, least((m) => m.top, down));
    return {
      left,
      top,
      width: Math.min(width, most((m) => m.left + m.width, across)) - left,
      height: Math.min(height, most((m) => m.top + m.height, down)) - top,
    };
  }

  // Which mask each pixel of a region shows, column by column; -1 for none.
  function owners(data, masks, canvas, region) {
    const { left, top, width, height } = region;
    const owner = new Int32Array(width * height).fill(-1);
    const across = data.width / canvas.width, down = canvas.height / data.height;
    masks.forEach((mask) => {
      const first = Math.max(left, Math.ceil(mask.left / across - 0.5));
      for (let x = first; x < left + width; x++) {
        const column = Math.floor((x + 0.5) * across) - mask.left;
        if (column >= mask.width) break;
        for (const [from, to] of mask.spans[column] ?? []) {
          const y0 = Math.max(0, Math.ceil((mask.top + from) * down - 0.5) - top);
          const y1 = Math.min(height, Math.ceil((mask.top + to) * down - 0.5) - top);
          const start = (x - left) * height;
          if (y1 > y0) owner.fill(mask.index, start + y0, start + y1);
        }
      }
    });
    return owner;
  }

  // Whether a pixel lies within `thick` steps of where its mask ends: what lies over a mask does
  // not end it, nor does the edge of the picture.
  function isBorder(owner, x, y, canvas, region, thick) {
    const { left, top, width, height } = region, at = x * height + y, own = owner[at];
    for (let d = 1; d <= thick; d++) {
      if (y >= d ? owner[at - d] < own : y + top >= d) return true;
      if (y + d < height ? owner[at + d] < own : y + top + d < canvas.height) return true;
      if (x >= d ? owner[at - d * height] < own : x + left >= d) return true;
      if (x + d < width ? owner[at + d * height] < own : x + left + d < canvas.width) return true;
    }
    return false;
  }

  // One number for a pixel, as a canvas stores it.
  function packed(red, green, blue, alpha) {
    return new Uint32Array(new Uint8ClampedArray([red, green, blue, alpha]).buffer)[0];
  }

  // Draws masks in their colours, each a pair of fill and line; what none covers stays as it is.
  function draw(canvas, data, masks, colours, thick) {
    if (!masks.length) return;
    const region = regionOf(data, masks, canvas), { left, top, width, height } = region;
    if (width <= 0 || height <= 0) return;
    const owner = owners(data, masks, canvas, region);
    const context = contextOf(canvas);
    const image = context.getImageData(left, top, width, height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let x = 0; x < width; x++) {
      for (let y = 0; y < height; y++) {
        const own = owner[x * height + y];
        if (own < 0) continue;
        const border = isBorder(owner, x, y, canvas, region, thick);
        pixels[y * width + x] = colours[own][border ? 1 : 0];
      }
    }
    context.putImageData(image, left, top);
  }

  // All masks: a fill and a lighter outline.
  function paint(canvas, data, mode) {
    const colours = data.masks.map((mask) => {
      const colour = colourOf(mask.index);
      const line = colour.map((part) => 0.55 * part + 0.45 * 255);
      return [packed(...colour, mode === "masks" ? 97 : 0), packed(...line, 242)];
    });
    draw(canvas, data, data.masks, colours, Math.max(1, Math.round(1.6 * devicePixelRatio)));
  }

  // One mask: all else in the shade, a line around it, and its prompt.
  function focus(canvas, data, mask) {
    const context = contextOf(canvas);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.fillStyle = "rgb(8 10 12 / 59%)";
    context.fillRect(0, 0, canvas.width, canvas.height);
    const colours = { [mask.index]: [0, packed(255, 255, 255, 255)] };
    draw(canvas, data, [mask], colours, Math.max(2, Math.round(2 * devicePixelRatio)));
    if (mask.x === null || mask.y === null) return;
    const scale = canvas.width / data.width;
    context.beginPath();
    context.arc(mask.x * scale, mask.y * scale, 4 * devicePixelRatio, 0, 2 * Math.PI);
    context.fillStyle = "#ffd54a";
    context.strokeStyle = "#000";
    context.lineWidth = devicePixelRatio;
    context.fill();
    context.stroke();
  }

  const score = (value) => (value === null ? "–" : value.toFixed(3));
  const share = (data, mask) => `${(100 * mask.area / data.pixels).toPrecision(2)} %`;
  function describe(data, mask) {
    return `predicted IoU ${score(mask.iou)} · stability ${score(mask.stability)} · ` +
      `${mask.area.toLocaleString("en")} px (${share(data, mask)})`;
  }

  // The words beside the pointer.
  const tip = $("#tip"), viewer = $("#viewer");
  function say(words, x, y) {
    (viewer.open ? viewer : document.body).append(tip);
    tip.textContent = words;
    tip.hidden = !words;
    if (!words) return;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - width - 4))}px`;
    tip.style.top = `${y + 18 + height > innerHeight ? y - height - 10 : y + 18}px`;
  }

  // The number of the mask under the pointer.
  function pointed(event, canvas, data) {
    const box = canvas.getBoundingClientRect();
    const x = Math.floor((event.clientX - box.left) / box.width * data.width);
    const y = Math.floor((event.clientY - box.top) / box.height * data.height);
    return maskAt(data, x, y);
  }

  // Cards: scores under the pointer.
  $$(".picture[data-key]").forEach((picture) => {
    const canvas = document.createElement("canvas"), image = $("img", picture);
    let data = null, shown = -1;
    const clear = () => {
      shown = -1;
      canvas.remove();
      say("");
    };
    picture.addEventListener("pointermove", async (event) => {
      if (event.pointerType === "touch") return;
      data ??= await load(picture.dataset.key);
      if (!data || !picture.matches(":hover")) return;
      if (!canvas.isConnected) {
        picture.append(canvas);
        place(image, canvas, data);
        shown = -1;
      }
      const found = pointed(event, canvas, data);
      if (found !== shown) {
        shown = found;
        if (found < 0) contextOf(canvas).clearRect(0, 0, canvas.width, canvas.height);
        else focus(canvas, data, data.masks[found]);
      }
      say(found < 0 ? "" : describe(data, data.masks[found]), event.clientX, event.clientY);
    });
    picture.addEventListener("pointerleave", clear);
    picture.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      clear();
      open($$(".picture[data-key]", picture.closest(".cards")), picture);
    });
  });

  // The viewer.
  const stage = $(".stage", viewer), image = $("img", stage), rows = $("tbody", viewer);
  const painted = $(".paint", stage), focused = $(".focus", stage);
  let pictures = [], at = 0, data = null, chosen = -1, pinned = false, mode = "masks";
  let sort = "number";

  function open(list, picture) {
    pictures = list;
    viewer.showModal();
    show(list.indexOf(picture));
  }

  async function show(index) {
    at = (index + pictures.length) % pictures.length;
    const picture = pictures[at], key = picture.dataset.key;
    const name = $(".name", picture.closest(".card"));
    $(".name", viewer).textContent = name.textContent;
    $(".name", viewer).title = name.textContent;
    $(".position", viewer).textContent = `${at + 1} / ${pictures.length}`;
    image.src = `images/${key}-photo.jpg`;
    image.alt = $("img", picture).alt;
    data = null;
    chosen = -1;
    pinned = false;
    rows.replaceChildren();
    [painted, focused].forEach((canvas) => { canvas.width = canvas.width; });
    const found = await load(key);
    if (key !== pictures[at].dataset.key || !viewer.open) return;
    data = found;
    if (!data) return;
    list();
    redraw();
  }

  function redraw() {
    if (!data) return;
    place(image, painted, data);
    place(image, focused, data);
    if (mode !== "photo") paint(painted, data, mode);
    choose(chosen);
  }

  function choose(index, { scroll = false } = {}) {
    chosen = index;
    stage.classList.toggle("is-focused", index >= 0);
    focused.width = focused.width;
    $$("tr", rows).forEach((row) => {
      const own = Number(row.dataset.index) === index;
      row.setAttribute("aria-selected", String(own));
      row.tabIndex = own ? 0 : -1;
      if (own && scroll) row.scrollIntoView({ block: "nearest" });
    });
    if (index < 0 && rows.firstChild) rows.firstChild.tabIndex = 0;
    if (index >= 0) focus(focused, data, data.masks[index]);
  }

  const orders = {
    number: (a, b) => a.index - b.index,
    iou: (a, b) => (b.iou ?? -1) - (a.iou ?? -1),
    stability: (a, b) => (b.stability ?? -1) - (a.stability ?? -1),
    area: (a, b) => a.area - b.area,
  };
  function list() {
    const sorted = [...data.masks].sort(orders[sort]);
    rows.replaceChildren(...sorted.map((mask) => {
      const row = document.createElement("tr");
      row.dataset.index = mask.index;
      row.tabIndex = -1;
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = `rgb(${colourOf(mask.index).join(",")})`;
      const texts = [String(mask.index + 1), score(mask.iou), score(mask.stability),
        mask.area.toLocaleString("en")];
      row.append(...texts.map((text) => {
        const cell = document.createElement("td");
        cell.textContent = text;
        return cell;
      }));
      row.firstChild.prepend(swatch);
      row.setAttribute("aria-label", `mask ${mask.index + 1}: ${describe(data, mask)}`);
      return row;
    }));
    $$("thead button", viewer).forEach((button) => {
      const head = button.parentElement;
      if (button.dataset.sort !== sort) head.removeAttribute("aria-sort");
      else {
        const rises = sort === "number" || sort === "area";
        head.setAttribute("aria-sort", rises ? "ascending" : "descending");
      }
    });
    choose(chosen);
  }

  function setMode(name) {
    mode = name;
    $$(".modes button", viewer).forEach((button) => {
      button.setAttribute("aria-pressed", String(button.dataset.mode === name));
    });
    redraw();
  }

  stage.addEventListener("pointermove", (event) => {
    if (!data || pinned) return;
    const found = pointed(event, focused, data);
    if (found !== chosen) choose(found, { scroll: true });
    say(found < 0 ? "" : describe(data, data.masks[found]), event.clientX, event.clientY);
  });
  stage.addEventListener("pointerleave", () => {
    say("");
    if (data && !pinned) choose(-1);
  });
  // A click holds a mask, so that it can be looked at in the list.
  stage.addEventListener("click", (event) => {
    if (!data) return;
    const found = pointed(event, focused, data);
    pinned = found >= 0 && !(pinned && found === chosen);
    choose(pinned ? found : -1, { scroll: true });
    say(pinned ? describe(data, data.masks[found]) : "", event.clientX, event.clientY);
  });

  rows.addEventListener("pointerover", (event) => {
    const row = event.target.closest("tr");
    if (row && data && !pinned) choose(Number(row.dataset.index));
  });
  rows.addEventListener("pointerleave", () => { if (data && !pinned) choose(-1); });
  rows.addEventListener("focusin", (event) => {
    const index = Number(event.target.closest("tr").dataset.index);
    if (index !== chosen) choose(index);
  });
  rows.addEventListener("click", (event) => {
    const row = event.target.closest("tr"), index = Number(row.dataset.index);
    pinned = !(pinned && chosen === index);
    choose(index);
    row.focus();
  });

  viewer.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.step) show(at + Number(button.dataset.step));
    else if (button.dataset.mode) setMode(button.dataset.mode);
    else if (button.dataset.sort) {
      sort = button.dataset.sort;
      if (data) list();
    } else viewer.close();
  });
  viewer.addEventListener("close", () => {
    say("");
    document.body.append(tip);
    pictures[at]?.focus({ preventScroll: false });
  });

  function step(by) {
    const all = $$("tr", rows);
    if (!all.length) return;
    const index = all.findIndex((row) => Number(row.dataset.index) === chosen);
    const next = index < 0 ? (by > 0 ? 0 : all.length - 1) : (index + by + all.length) % all.length;
    pinned = true;
    choose(Number(all[next].dataset.index), { scroll: true });
    all[next].focus();
  }
  const keys = {
    ArrowRight: () => show(at + 1),
    ArrowLeft: () => show(at - 1),
    ArrowDown: () => step(1),
    ArrowUp: () => step(-1),
    m: () => setMode("masks"),
    o: () => setMode("outlines"),
    p: () => setMode("photo"),
  };
  viewer.addEventListener("keydown", (event) => {
    const act = keys[event.key] ?? keys[event.key.toLowerCase()];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  });
  addEventListener("resize", () => { if (viewer.open) redraw(); });

  // Sections of the gallery: one at a time, and the address says which.
  const tabs = $$(".tabs a");
  function shelve(name) {
    tabs.forEach((tab) => {
      const own = tab.dataset.shelf === name;
      tab.setAttribute("aria-current", String(own));
      document.getElementById(tab.dataset.shelf).hidden = !own;
    });
  }
  tabs.forEach((tab) => tab.addEventListener("click", (event) => {
    event.preventDefault();
    history.replaceState(null, "", `#${tab.dataset.shelf}`);
    shelve(tab.dataset.shelf);
  }));
  if (tabs.length) {
    const asked = tabs.find((tab) => `#${tab.dataset.shelf}` === location.hash);
    shelve((asked ?? tabs[0]).dataset.shelf);
  }
})();
