// How masks stand, and the history: each step has the change there and the change back, so that undo
// and redo are decisions like any other.

const BLANK = { decision: null, tags: [] };
const MOST_STEPS = 500;

export const isMerge = (name) => name.includes("+");
export const mergeName = (parts) => [...new Set(parts)].sort().join("+");

/** Tells how a mask or a union stands. */
export function standing(review, name) {
  const found = isMerge(name) ? review.merges[name] : review.masks[name];
  return found ? { decision: found.decision, tags: found.tags } : BLANK;
}

/** Gives the change that takes another one back, from how things stood before it. */
export function inverse(change, review) {
  const back = {};
  if (change.masks) {
    back.masks = Object.fromEntries(Object.keys(change.masks).map((name) => [name, standing(review, name)]));
  }
  if (change.merges) {
    back.merges = Object.fromEntries(
      Object.keys(change.merges).map((name) => [name, review.merges[name] ? standing(review, name) : null]),
    );
  }
  if (change.is_done !== undefined && change.is_done !== null) back.is_done = review.is_done;
  return back;
}

/** Sets how some masks and unions stand. */
export function setStandings(names, of) {
  const change = {};
  for (const name of names) (isMerge(name) ? (change.merges ??= {}) : (change.masks ??= {}))[name] = of(name);
  return change;
}

/** Puts a change into a review at once; the server's answer takes its place soon after. */
export function applied(review, change) {
  const masks = { ...review.masks, ...change.masks };
  const merges = { ...review.merges };
  for (const [name, union] of Object.entries(change.merges ?? {})) {
    if (union) merges[name] = { ...merges[name], ...union };
    else delete merges[name];
  }
  return { masks, merges, is_done: change.is_done ?? review.is_done };
}

/** What was done, so that it can be undone; survives a reload of the page. */
export class History {
  #key;
  #steps = [];
  #position = 0;

  constructor(key) {
    this.#key = key;
    try {
      const { steps, position } = JSON.parse(sessionStorage.getItem(key)) ?? { steps: [], position: 0 };
      [this.#steps, this.#position] = [steps, position];
    } catch {
      // Nothing was kept, or cannot be: the history begins now.
    }
  }

  get undoable() {
    return this.#position > 0;
  }

  get redoable() {
    return this.#position < this.#steps.length;
  }

  add(step) {
    this.#steps.length = this.#position;
    this.#steps.push(step);
    if (this.#steps.length > MOST_STEPS) this.#steps.shift();
    this.#position = this.#steps.length;
    this.#keep();
  }

  undo() {
    const step = this.#steps[--this.#position];
    this.#keep();
    return { number: step.number, imageId: step.imageId, change: step.back, said: step.said };
  }

  redo() {
    const step = this.#steps[this.#position++];
    this.#keep();
    return { number: step.number, imageId: step.imageId, change: step.there, said: step.said };
  }

  forget() {
    [this.#steps, this.#position] = [[], 0];
    this.#keep();
  }

  #keep() {
    try {
      sessionStorage.setItem(this.#key, JSON.stringify({ steps: this.#steps, position: this.#position }));
    } catch {
      // Without a place to keep it, the history ends with the page.
    }
  }
}
