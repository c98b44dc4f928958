// An entry's text, as far as a slider has to understand it. What it means is for the server to say.

export function parts(text) {
  return text.split(",").map((part) => part.trim()).filter(Boolean);
}

function isTail(part) {
  return /^P\s*\(/.test(part);
}

// ">=", "<=", "==", or "max" or "free".
export function relationOf(text) {
  const plain = parts(text).filter((part) => !isTail(part) && part !== "free");
  if (plain.length === 0) return "free";
  if (plain.includes("max")) return "max";
  const given = /^(>=|<=|==)/.exec(plain[0]);
  return given ? given[1] : ">=";
}

// The same text with another plain entry; its tails stay.
export function withPlain(text, plain) {
  const kept = parts(text).filter(isTail);
  const whole = plain === "free" && kept.length ? kept : [plain, ...kept];
  return whole.join(", ");
}

export function entryOf(relation, quantity) {
  return relation === ">=" ? quantity : `${relation} ${quantity}`;
}

export function isFree(text) {
  return parts(text).every((part) => part === "free");
}
