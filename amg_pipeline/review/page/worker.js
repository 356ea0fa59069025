// Rasterises masks apart from the page, which stays quick meanwhile.
import { rasterise } from "/page/runs.js";

self.addEventListener("message", ({ data: { job, counts, image, frame, border } }) => {
  const masks = counts.map((text) => rasterise(text, image, frame, border));
  const buffers = masks.flatMap((mask) => (mask ? [mask.spans.buffer, mask.edges.buffer, mask.rows.buffer] : []));
  self.postMessage({ job, masks }, buffers);
});
