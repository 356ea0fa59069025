// The masks as a list, for keys and screen readers as well as for the eye.
import { colourOf } from "/page/colours.js";

const WORDS = { accepted: "accepted", rejected: "rejected" };
const show = (value) => (value === null || Number.isNaN(value) ? "–" : value.toFixed(2));

export class MaskList {
  #root;
  #rows = new Map();

  /** `on` has `pick(mask, event)` and `mean(mask)`. */
  constructor(root, on) {
    this.#root = root;
    const maskOf = (event) => event.target.closest("[role=option]")?.mask;
    root.addEventListener("click", (event) => maskOf(event) && on.pick(maskOf(event), event));
    root.addEventListener("pointermove", (event) => maskOf(event) && on.mean(maskOf(event)));
  }

  /** Lists the masks of another image, or other masks of the same. */
  open(masks) {
    this.#rows.clear();
    const rows = masks.map((mask) => {
      const row = document.createElement("div");
      row.id = `mask-${mask.index}`;
      row.mask = mask;
      row.setAttribute("role", "option");
      for (const name of ["swatch", "title", "iou", "stability", "area", "sign", "words"]) {
        const cell = document.createElement("span");
        cell.className = name;
        row.append(cell);
      }
      const [, title, iou, stability, area] = row.children;
      title.textContent = titleOf(mask);
      iou.textContent = show(mask.iou);
      stability.textContent = show(mask.stability);
      area.textContent = mask.area.toLocaleString("en");
      this.#rows.set(mask.name, row);
      return row;
    });
    this.#root.replaceChildren(...rows);
  }

  /** Shows which masks there are to be seen, and how each stands. */
  update(shown, standingOf) {
    for (const row of this.#rows.values()) {
      const isHidden = !shown.has(row.mask);
      if (row.hidden !== isHidden) row.hidden = isHidden;
      if (isHidden) continue;
      const { decision, tags } = standingOf(row.mask);
      const state = `${decision}|${tags.join("|")}`;
      if (row.state === state) continue;
      row.state = state;
      row.dataset.decision = decision ?? "";
      row.querySelector(".swatch").style.background = `rgb(${colourOf(row.mask.index, decision).join(" ")})`;
      row.querySelector(".sign").textContent = { accepted: "✓", rejected: "✕" }[decision] ?? "";
      row.querySelector(".words").textContent = tags.join(" · ");
      row.setAttribute("aria-label", describe(row.mask, { decision, tags }));
    }
  }

  /** Marks picked masks, and the one that keys mean. */
  mark(picked, active, { scroll }) {
    for (const [name, row] of this.#rows) {
      const isPicked = picked.has(name);
      if (row.getAttribute("aria-selected") !== String(isPicked)) row.setAttribute("aria-selected", isPicked);
      row.classList.toggle("active", name === active?.name);
    }
    const row = active && this.#rows.get(active.name);
    if (row) this.#root.setAttribute("aria-activedescendant", row.id);
    else this.#root.removeAttribute("aria-activedescendant");
    if (row && scroll) row.scrollIntoView({ block: "nearest" });
  }

  /** The masks that are listed now, in order. */
  get masks() {
    return [...this.#rows.values()].filter((row) => !row.hidden).map((row) => row.mask);
  }
}

export const titleOf = (mask) => (mask.parts ? `Union of ${mask.parts.length}` : `Mask ${mask.index + 1}`);

/** Says all about a mask in words. */
export function describe(mask, { decision, tags }) {
  return [
    titleOf(mask),
    `predicted IoU ${show(mask.iou)}`,
    `stability ${show(mask.stability)}`,
    `area ${mask.area.toLocaleString("en")} pixels`,
    WORDS[decision] ?? "no decision",
    ...(tags.length ? [`tagged ${tags.join(", ")}`] : []),
  ].join(", ");
}
