// Colours of masks on the stage: many hues while there is no decision, none of which is green or red.

const GOLDEN = 0.618033988749895;

/** Gives red, green, blue of a mask, from 0 to 255. */
export function colourOf(index, decision) {
  if (decision === "accepted") return [38, 194, 107];
  if (decision === "rejected") return [240, 82, 82];
  const turn = (0.62 + index * GOLDEN) % 1;
  const hue = turn < 0.25 ? 32 + turn * 160 : 188 + ((turn - 0.25) / 0.75) * 132;
  return fromHsl(hue, [0.92, 0.8][index % 2], [0.56, 0.66, 0.5][index % 3]);
}

function fromHsl(hue, saturation, lightness) {
  const chroma = saturation * Math.min(lightness, 1 - lightness);
  return [0, 8, 4].map((shift) => {
    const k = (shift + hue / 30) % 12;
    return Math.round(255 * (lightness - chroma * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  });
}

/** Packs a colour as a pixel of an ImageData seen as 32 bit words. */
export function pack([red, green, blue], alpha) {
  return ((Math.round(alpha * 255) << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}
