/** Names of orders: the same for the same guest, hosts and report, so that an order that is given twice is one. */

/** FNV-1a, with 32 bits and a basis of the caller's. Not for secrets: a caller that may order needs no collision. */
function hash(text: string, basis: number): string {
  let state = basis;
  for (let at = 0; at < text.length; at++) state = Math.imul(state ^ text.charCodeAt(at), 0x01000193);
  // Spreads the last characters over all bits.
  state = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
  state = Math.imul(state ^ (state >>> 15), 0x735a2d97);
  return ((state ^ (state >>> 15)) >>> 0).toString(16).padStart(8, '0');
}

export function orderId(...words: readonly (string | number)[]): string {
  // A length before each word: no two lists of words are one text.
  const text = words.map(word => `${String(word).length}:${word}`).join('');
  return `move-${hash(text, 0x811c9dc5)}${hash(text, 0x9e3779b9)}`;
}
