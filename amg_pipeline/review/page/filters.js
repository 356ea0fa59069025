// The sliders, each with how the image's masks are spread along it.

const BINS = 48;
const STORE = "amg-review-filters";
/** Powers of ten of the largest area that can be asked for. */
const MOST_POWER = 8;

const percent = (value) => `${Number((value * 100).toPrecision(3))} % of image`;
const score = (value) => value.toFixed(2);
const toArea = (position) => (position <= 0 ? 0 : Math.round(10 ** position));

/** `from` turns a slider's position into a limit; `of` says where a mask lies along the slider. */
const SLIDERS = [
  { key: "iou", label: "Predicted IoU ≥", name: "Least predicted IoU", min: 0, max: 1, step: 0.005, rest: 0, say: score,
    of: (mask) => mask.iou, passes: (mask, limit) => limit === 0 || mask.iou >= limit },
  { key: "stability", label: "Stability ≥", name: "Least stability score", min: 0, max: 1, step: 0.005, rest: 0, say: score,
    of: (mask) => mask.stability, passes: (mask, limit) => limit === 0 || mask.stability >= limit },
  { key: "area", label: "Area ≥", name: "Least area", min: 0, max: MOST_POWER, step: 0.05, rest: 0, from: toArea,
    say: (value) => `${value.toLocaleString("en")} px`,
    of: (mask) => Math.log10(Math.max(1, mask.area)), passes: (mask, limit) => mask.area >= limit },
  { key: "share", label: "Area <", name: "Area below, as part of the image", min: 0, max: 1, step: 0.005, rest: 1, say: percent,
    of: (mask, image) => mask.area / (image.width * image.height),
    passes: (mask, limit, image) => limit === 1 || mask.area < limit * image.width * image.height },
];

export class Filters {
  #sliders = [];

  constructor(root, onChange) {
    const kept = JSON.parse(sessionStorage.getItem(STORE) ?? "{}");
    for (const slider of SLIDERS) {
      const row = document.createElement("div");
      row.className = "slider";
      row.innerHTML = "<label></label><output></output><canvas aria-hidden='true'></canvas><input type='range'>";
      const [label, output, canvas, input] = row.children;
      label.textContent = slider.label;
      label.htmlFor = input.id = `slider-${slider.key}`;
      input.setAttribute("aria-label", slider.name);
      Object.assign(input, { min: slider.min, max: slider.max, step: slider.step });
      input.value = kept[slider.key] ?? slider.rest;
      output.htmlFor = input.id;
      const one = { ...slider, input, output, canvas, bins: new Uint32Array(BINS) };
      this.#sliders.push(one);
      input.addEventListener("input", () => {
        this.#show(one);
        this.#keep();
        onChange();
      });
      root.append(row);
      measure(one);
      this.#show(one);
    }
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.#sliders.forEach(measure);
      this.#sliders.forEach(draw);
    });
  }

  /** Shows how the masks of another image are spread. */
  open(image) {
    this.#sliders.forEach(measure);
    for (const slider of this.#sliders) {
      slider.bins.fill(0);
      for (const mask of image.masks) {
        const at = (slider.of(mask, image) - slider.min) / (slider.max - slider.min);
        if (Number.isFinite(at)) slider.bins[Math.min(BINS - 1, Math.max(0, Math.floor(at * BINS)))]++;
      }
      draw(slider);
    }
  }

  /** Gives a function that tells whether a mask of an image passes. */
  test(image) {
    const set = this.#sliders
      .filter(({ input, rest }) => Number(input.value) !== rest)
      .map(({ passes, input, from }) => [passes, from ? from(Number(input.value)) : Number(input.value)]);
    return (mask) => set.every(([passes, limit]) => passes(mask, limit, image));
  }

  reset() {
    for (const slider of this.#sliders) {
      slider.input.value = slider.rest;
      this.#show(slider);
    }
    this.#keep();
  }

  #show(slider) {
    const position = Number(slider.input.value);
    const text = slider.say(slider.from ? slider.from(position) : position);
    slider.output.textContent = text;
    slider.input.setAttribute("aria-valuetext", text);
    const share = (position - slider.min) / (slider.max - slider.min);
    slider.input.style.setProperty("--share", `${share * 100}%`);
    slider.input.classList.toggle("from-right", slider.rest === slider.max);
    draw(slider);
  }

  #keep() {
    const values = Object.fromEntries(this.#sliders.map(({ key, input }) => [key, input.value]));
    sessionStorage.setItem(STORE, JSON.stringify(values));
  }
}

/** Asks for sizes and colours once, since each question makes the browser lay out the page. */
function measure(slider) {
  const { canvas } = slider;
  const ratio = devicePixelRatio || 1;
  [canvas.width, canvas.height] = [canvas.clientWidth || 140, canvas.clientHeight || 20].map((side) => Math.round(side * ratio));
  const style = getComputedStyle(canvas);
  slider.colours = [style.getPropertyValue("--accent"), style.getPropertyValue("--line")];
}

function draw({ canvas, bins, input, min, max, rest, colours: [kept, lost] }) {
  const ratio = devicePixelRatio || 1;
  const context = canvas.getContext("2d");
  const limit = ((Number(input.value) - min) / (max - min)) * BINS;
  const most = Math.max(1, ...bins);
  context.clearRect(0, 0, canvas.width, canvas.height);
  const step = canvas.width / BINS;
  bins.forEach((count, bin) => {
    if (!count) return;
    const isKept = rest === max ? bin < limit : bin + 1 > limit;
    // By the root, so that single masks are seen beside hundreds.
    const tall = Math.max(2 * ratio, Math.sqrt(count / most) * canvas.height);
    context.fillStyle = isKept ? kept : lost;
    context.fillRect(bin * step, canvas.height - tall, Math.max(1, step - ratio), tall);
  });
}
