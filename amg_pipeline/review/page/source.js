// What the server has: images with their masks and pixels, ahead of time where it can be guessed,
// and the decisions, which are sent one after another.
import { chooseFrame } from "/page/runs.js";

/** Pixels of the long side of the frame that masks are painted in. */
const FRAME_SIDE = devicePixelRatio > 1 ? 1920 : 1280;
/** Images that are kept, ready to be shown. */
const KEPT = 8;

export class ServerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new ServerError("The server does not answer. Is `amg review` still running?", 0);
  }
  if (answer.ok) return answer.json();
  const text = await answer.text();
  let message = text;
  try {
    const body = JSON.parse(text);
    message = body.error ?? "The server did not understand this.";
  } catch {
    // A plain text says it as it is.
  }
  throw new ServerError(message, answer.status);
}

export const describeRun = () => ask("/api/run");
export const nextOpen = (after, step = 1) => ask(`/api/next?after=${after}&step=${step}`).then(({ number }) => number);
export const find = (text) => ask(`/api/find?text=${encodeURIComponent(text)}`).then(({ images }) => images);

export function sendChange(number, imageId, change) {
  return ask(`/api/images/${number}/changes`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ image_id: imageId, change }),
  });
}

const worker = new Worker("/page/worker.js", { type: "module" });
const jobs = new Map();
let lastJob = 0;
worker.addEventListener("message", ({ data }) => {
  jobs.get(data.job)(data.masks);
  jobs.delete(data.job);
});

/** Rasterises masks of an image in the worker. */
export function rasterise(counts, image) {
  if (!counts.length) return Promise.resolve([]);
  const job = ++lastJob;
  const { frame, border } = image;
  worker.postMessage({ job, counts, frame, border, image: { width: image.width, height: image.height } });
  return new Promise((resolve) => jobs.set(job, resolve));
}

const kept = new Map();

/** Loads an image with its masks, rasterised; from what is kept where it can. */
export function loadImage(number) {
  const found = kept.get(number);
  if (found) {
    kept.delete(number);
    kept.set(number, found);
    return found;
  }
  const loading = load(number);
  kept.set(number, loading);
  loading.catch(() => kept.delete(number));
  if (kept.size > KEPT) kept.delete(kept.keys().next().value);
  return loading;
}

/** Forgets an image, which is loaded anew when it is asked for. */
export function forget(number) {
  kept.delete(number);
}

async function load(number) {
  const picture = loadPicture(number);
  const answer = await ask(`/api/images/${number}`);
  const frame = chooseFrame(answer.width, answer.height, FRAME_SIDE);
  const image = { ...answer, frame, border: Math.max(1, Math.round(Math.max(frame.width, frame.height) / 700)) };
  const { name, counts, predicted_iou: iou, stability_score: stability, area } = answer.masks;
  const rasters = await rasterise(counts, image);
  image.masks = name.map((name, index) => ({
    name,
    index,
    iou: iou[index],
    stability: stability[index],
    area: area[index],
    raster: rasters[index],
  }));
  image.unions = await loadUnions(answer.review, image);
  image.picture = picture;
  return image;
}

/** Makes masks of the unions that a person made. */
export async function loadUnions(review, image) {
  const entries = Object.entries(review.merges);
  const rasters = await rasterise(entries.map(([, union]) => union.counts), image);
  return entries.map(([name, union], index) => ({
    name,
    index: image.masks.length + index,
    parts: union.parts,
    iou: union.predicted_iou,
    stability: union.stability_score,
    area: union.area,
    raster: rasters[index],
  }));
}

/** Loads the pixels; gives the reason where there are none. */
async function loadPicture(number) {
  const url = `/api/images/${number}/picture`;
  const picture = new Image();
  picture.src = url;
  try {
    await picture.decode();
    return { url };
  } catch {
    return ask(url).then(
      () => ({ reason: "The picture cannot be shown." }),
      (error) => ({ reason: error.message }),
    );
  }
}
