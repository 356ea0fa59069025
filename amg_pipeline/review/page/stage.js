// The image with its masks: painting, zoom, and what lies under the pointer.
import { colourOf, pack } from "/page/colours.js";
import { contains } from "/page/runs.js";

const EDGE = 0x8000;
const FILL_ALPHA = 0.42;
const MOST_ZOOM = 16;
const ZOOM_STEP = 1.25;
/** Pixels that a pointer may move in a click. */
const CLICK_PIXELS = 4;
/** Room around the image; below it are the tools. */
const MARGIN = 20;
const FOOT = 64;

const white = [255, 255, 255];
const accent = [64, 146, 255];

export class Stage {
  #root;
  #view;
  #picture;
  #fills;
  #marks;
  #frame = { width: 1, height: 1 };
  #labels = new Uint16Array(1);
  #table = new Uint32Array(2 * EDGE);
  #fillPixels;
  #markPixels;
  #shown = [];
  #marked = [null];
  #zoom = 1;
  #offset = { x: 0, y: 0 };
  #drag = null;

  /** `on` has `hover(masks, event)`, `click(masks, event)` and `zoom(factor)`. */
  constructor(root, on) {
    this.#root = root;
    this.#view = root.querySelector("#view");
    this.#picture = root.querySelector("#picture");
    this.#fills = root.querySelector("#fills");
    this.#marks = root.querySelector("#marks");
    this.#listen(on);
    new ResizeObserver(() => this.#place()).observe(root);
    this.onZoom = on.zoom;
  }

  /** Takes up another image. */
  open(image) {
    this.#frame = image.frame;
    this.#marked = [null];
    const { width, height } = image.frame;
    this.#labels = new Uint16Array(width * height);
    for (const canvas of [this.#fills, this.#marks]) [canvas.width, canvas.height] = [width, height];
    this.#fillPixels = new ImageData(width, height);
    this.#markPixels = new ImageData(width, height);
    this.#view.style.width = `${width}px`;
    this.#view.style.height = `${height}px`;
    this.#picture.removeAttribute("src");
    this.fit();
  }

  /** Shows the pixels, once they are there. */
  setPicture(url) {
    this.#picture.src = url;
  }

  /** Paints masks, the largest lowest; `decisionOf` says how one stands. */
  paint(masks, decisionOf) {
    const order = masks.filter((mask) => mask.raster).sort((one, other) => other.area - one.area);
    const labels = this.#labels.fill(0);
    order.forEach((mask, position) => {
      const label = position + 1;
      const decision = decisionOf(mask);
      const colour = colourOf(mask.index, decision);
      this.#table[label] = pack(colour, decision === "rejected" ? 0 : FILL_ALPHA);
      this.#table[label | EDGE] = pack(colour, decision === "rejected" ? 0.85 : 1);
      const { spans, edges } = mask.raster;
      // A rejected mask has no fill, and what lies under it shows.
      if (decision !== "rejected") {
        for (let at = 0; at < spans.length; at += 2) labels.fill(label, spans[at], spans[at + 1]);
      }
      for (let at = 0; at < edges.length; at++) labels[edges[at]] = label | EDGE;
    });
    const pixels = new Uint32Array(this.#fillPixels.data.buffer);
    const table = this.#table;
    for (let at = 0; at < pixels.length; at++) pixels[at] = table[labels[at]];
    this.#fills.getContext("2d").putImageData(this.#fillPixels, 0, 0);
    this.#shown = order.reverse();
  }

  /** Marks the picked masks, and the one that keys and the pointer mean. */
  mark(picked, active) {
    const marked = [...picked, active];
    // Nothing to do while sliders move, which is when each frame counts.
    if (marked.length === this.#marked.length && marked.every((mask, at) => mask === this.#marked[at])) return;
    this.#marked = marked;
    const pixels = new Uint32Array(this.#markPixels.data.buffer).fill(0);
    const put = (mask, fill, edge) => {
      if (!mask.raster) return;
      const { spans, edges } = mask.raster;
      for (let at = 0; at < spans.length; at += 2) pixels.fill(fill, spans[at], spans[at + 1]);
      for (let at = 0; at < edges.length; at++) pixels[edges[at]] = edge;
    };
    if (active && !picked.includes(active)) put(active, pack(white, 0.22), pack(white, 1));
    for (const mask of picked) put(mask, pack(accent, 0.42), pack(white, 1));
    if (active && picked.includes(active)) put(active, pack(accent, 0.58), pack(white, 1));
    this.#marks.getContext("2d").putImageData(this.#markPixels, 0, 0);
  }

  /** Lists the masks under a place of the window, the smallest first. */
  at(clientX, clientY) {
    const box = this.#view.getBoundingClientRect();
    const x = Math.floor(((clientX - box.left) / box.width) * this.#frame.width);
    const y = Math.floor(((clientY - box.top) / box.height) * this.#frame.height);
    if (x < 0 || y < 0 || x >= this.#frame.width || y >= this.#frame.height) return [];
    return this.#shown.filter((mask) => contains(mask.raster, x, y, this.#frame));
  }

  /** Shows the whole image. */
  fit() {
    this.#zoom = 1;
    this.#offset = { x: 0, y: 0 };
    this.#place();
  }

  /** Zooms by a factor about a place of the window; about the middle by default. */
  zoomBy(factor, at = null) {
    const box = this.#root.getBoundingClientRect();
    const [x, y] = at ?? [box.left + box.width / 2, box.top + box.height / 2];
    const zoom = Math.min(MOST_ZOOM, Math.max(1, this.#zoom * factor));
    const ratio = zoom / this.#zoom;
    const [fromX, fromY] = [x - box.left - box.width / 2, y - box.top - box.height / 2];
    this.#offset.x = fromX - (fromX - this.#offset.x) * ratio;
    this.#offset.y = fromY - (fromY - this.#offset.y) * ratio;
    this.#zoom = zoom;
    this.#place();
  }

  zoomIn() {
    this.zoomBy(ZOOM_STEP);
  }

  zoomOut() {
    this.zoomBy(1 / ZOOM_STEP);
  }

  #place() {
    const { clientWidth, clientHeight } = this.#root;
    const { width, height } = this.#frame;
    const fit = Math.min((clientWidth - 2 * MARGIN) / width, (clientHeight - MARGIN - FOOT) / height);
    const scale = Math.max(fit, 0.01) * this.#zoom;
    // No further than to the middle, so that the image is never lost.
    const limit = (side) => (side * scale) / 2;
    this.#offset.x = Math.max(-limit(width), Math.min(limit(width), this.#offset.x));
    this.#offset.y = Math.max(-limit(height), Math.min(limit(height), this.#offset.y));
    const left = clientWidth / 2 - (width * scale) / 2 + this.#offset.x;
    const top = (clientHeight + MARGIN - FOOT) / 2 - (height * scale) / 2 + this.#offset.y;
    this.#view.style.transform = `translate(${left}px, ${top}px) scale(${scale})`;
    this.#view.classList.toggle("close", scale > 2);
    this.onZoom?.(this.#zoom);
  }

  #listen(on) {
    const root = this.#root;
    const onTools = (event) => event.target.closest(".tools") !== null;
    root.addEventListener("pointermove", (event) => {
      if (this.#drag) {
        const [dx, dy] = [event.clientX - this.#drag.x, event.clientY - this.#drag.y];
        if (!this.#drag.moved && Math.hypot(dx, dy) < CLICK_PIXELS) return;
        this.#drag = { x: event.clientX, y: event.clientY, moved: true };
        this.#offset.x += dx;
        this.#offset.y += dy;
        this.#place();
        return;
      }
      on.hover(onTools(event) ? [] : this.at(event.clientX, event.clientY), event);
    });
    root.addEventListener("pointerleave", (event) => on.hover([], event));
    root.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || onTools(event)) return;
      root.setPointerCapture(event.pointerId);
      this.#drag = { x: event.clientX, y: event.clientY, moved: false };
    });
    root.addEventListener("pointerup", (event) => {
      const drag = this.#drag;
      this.#drag = null;
      if (drag && !drag.moved) on.click(this.at(event.clientX, event.clientY), event);
    });
    root.addEventListener("pointercancel", () => (this.#drag = null));
    root.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        this.zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), [event.clientX, event.clientY]);
      },
      { passive: false },
    );
  }
}
