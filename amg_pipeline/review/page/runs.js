// Masks from COCO's compressed run lengths to what is painted: spans of pixels along the rows, and
// the pixels along the border, in the frame of the stage. Made once per image, in a worker.

const GROUP_BITS = 5;
const FIRST = 48;

/** Reads COCO's compressed counts to run lengths, the first of zeros. */
export function parseCounts(text) {
  const runs = [];
  for (let at = 0; at < text.length; ) {
    let value = 0;
    let shift = 0;
    let code;
    do {
      code = text.charCodeAt(at++) - FIRST;
      value += (code & 0x1f) * 2 ** shift;
      shift += GROUP_BITS;
    } while (code & 0x20 && at < text.length);
    if (code & 0x10) value -= 2 ** shift;
    // From the fourth on, a run is the difference to the one before the last.
    if (runs.length > 2) value += runs[runs.length - 2];
    runs.push(value);
  }
  return runs;
}

/** How many times a small image is enlarged at most, so that its borders are drawn thin. */
const MOST_SCALE = 4;

/** Chooses the frame of the stage, in which masks are painted: of the image's shape. */
export function chooseFrame(width, height, maxSide) {
  const scale = Math.min(MOST_SCALE, maxSide / Math.max(width, height, 1));
  return { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) };
}

/**
 * Turns a mask into spans and border pixels.
 *
 * `spans` holds pairs of positions in the frame's row-major order, first and one after last; `rows`
 * says where the spans of each row of the box begin.
 */
export function rasterise(counts, image, frame, border) {
  const box = paint(parseCounts(counts), image, frame);
  return box ? trace(box, frame, border) : null;
}

/** Paints the runs, which go down the columns, into a small picture of their box in the frame. */
function paint(runs, image, frame) {
  const columns = sampled(image.width, frame.width);
  const toRow = frame.height / image.height;
  const pieces = [];
  let [left, top, right, bottom] = [frame.width, frame.height, 0, 0];
  let position = 0;
  let first = null;
  for (let index = 0; index < runs.length; index++) {
    const end = position + runs[index];
    if (index % 2 && runs[index] > 0) {
      first ??= position;
      const lastColumn = Math.floor((end - 1) / image.height);
      for (let column = Math.floor(position / image.height); column <= lastColumn; column++) {
        const x0 = columns[column];
        const x1 = columns[column + 1];
        if (x0 === x1) continue;
        const start = Math.max(position - column * image.height, 0);
        const stop = Math.min(end - column * image.height, image.height);
        // A pixel of the frame is set where its centre lies in the run.
        const y0 = Math.ceil(start * toRow - 0.5);
        const y1 = Math.ceil(stop * toRow - 0.5);
        if (y0 >= y1) continue;
        pieces.push(x0, x1, y0, y1);
        if (x0 < left) left = x0;
        if (x1 > right) right = x1;
        if (y0 < top) top = y0;
        if (y1 > bottom) bottom = y1;
      }
    }
    position = end;
  }
  if (!pieces.length) {
    if (first === null) return null;
    // Too small for the frame, and still to be seen and picked.
    const x = Math.min(frame.width - 1, Math.floor((Math.floor(first / image.height) * frame.width) / image.width));
    const y = Math.min(frame.height - 1, Math.floor((first % image.height) * toRow));
    pieces.push(x, x + 1, y, y + 1);
    [left, right, top, bottom] = [x, x + 1, y, y + 1];
  }
  const width = right - left;
  const bits = new Uint8Array(width * (bottom - top));
  for (let at = 0; at < pieces.length; at += 4) {
    for (let x = pieces[at]; x < pieces[at + 1]; x++) {
      let place = (pieces[at + 2] - top) * width + x - left;
      for (let y = pieces[at + 2]; y < pieces[at + 3]; y++, place += width) bits[place] = 1;
    }
  }
  return { bits, left, top, width, height: bottom - top };
}

/** Says for each column of the image where in the frame it begins; those between are left out. */
const starts = new Map();
function sampled(width, frameWidth) {
  const key = `${width}:${frameWidth}`;
  let columns = starts.get(key);
  if (!columns) {
    columns = new Int32Array(width + 1);
    for (let column = 0; column <= width; column++) {
      columns[column] = Math.ceil((column * frameWidth) / width - 0.5);
    }
    columns[width] = frameWidth;
    starts.clear();
    starts.set(key, columns);
  }
  return columns;
}

function trace({ bits, left, top, width, height }, frame, border) {
  const spans = [];
  const edges = [];
  const rows = new Uint32Array(height + 1);
  const isSet = (x, y) => x >= 0 && y >= 0 && x < width && y < height && bits[y * width + x];
  for (let y = 0; y < height; y++) {
    const base = (y + top) * frame.width + left;
    let begin = -1;
    for (let x = 0; x <= width; x++) {
      const on = x < width && bits[y * width + x];
      if (on && begin < 0) begin = x;
      if (!on && begin >= 0) {
        spans.push(base + begin, base + x);
        begin = -1;
      }
      if (!on) continue;
      for (let step = 1; step <= border; step++) {
        if (
          // The edge of the picture is no border.
          (x + left >= step && !isSet(x - step, y)) ||
          (x + left + step < frame.width && !isSet(x + step, y)) ||
          (y + top >= step && !isSet(x, y - step)) ||
          (y + top + step < frame.height && !isSet(x, y + step))
        ) {
          edges.push(base + x);
          break;
        }
      }
    }
    rows[y + 1] = spans.length;
  }
  return {
    spans: Uint32Array.from(spans),
    edges: Uint32Array.from(edges),
    rows,
    box: [left, top, width, height],
  };
}

/** Tells whether a mask has a pixel of the frame. */
export function contains(mask, x, y, frame) {
  const [left, top, width, height] = mask.box;
  if (x < left || y < top || x >= left + width || y >= top + height) return false;
  const place = y * frame.width + x;
  for (let at = mask.rows[y - top]; at < mask.rows[y - top + 1]; at += 2) {
    if (place >= mask.spans[at] && place < mask.spans[at + 1]) return true;
  }
  return false;
}
