// How numbers are written: as many digits as the range of a value deserves, and a minus sign that is one.

export function digitsOf(range) {
  if (!(range > 0)) return 3;
  return Math.min(8, Math.max(0, Math.ceil(-Math.log10(range)) + 2));
}

// For people.
export function shown(number, digits = 2) {
  if (number === null || number === undefined || !Number.isFinite(number)) return "–";
  const text = number.toFixed(digits);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
}

// For an entry of the palette language.
export function written(number, digits) {
  const text = String(Number(number.toFixed(digits)));
  if (!text.includes("e")) return text;
  return number.toFixed(Math.min(100, digits + 8));
}

export function percent(share, digits = 0) {
  return share === null || !Number.isFinite(share) ? "–" : `${shown(100 * share, digits)} %`;
}
