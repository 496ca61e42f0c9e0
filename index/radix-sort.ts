/**
 * Sorts rows by a numeric key with up to 53 bits: least significant digit first, stable, in O(rows).
 *
 * Invariant: the order is a permutation of the rows, and keys do not decrease along it.
 */
const DIGIT_BITS = 11;
const DIGITS = 1 << DIGIT_BITS;
/** Below this, setting up the digit counts costs more than comparing. */
const ROWS_MIN = 512;

/**
 * @param keys - whole numbers from 0 up to 2^53 - 1; borrowed, not changed
 * @returns the row numbers in key order; rows with equal keys keep their order
 */
export function sortedOrder(keys: Float64Array): Uint32Array {
  const order = Uint32Array.from(keys, (_key, row) => row);
  if (keys.length < ROWS_MIN) {
    return order.sort((left, right) => keys[left]! - keys[right]! || left - right);
  }
  let largest = 0;
  for (const key of keys) if (key > largest) largest = key;
  let from: Uint32Array = order;
  let into: Uint32Array = new Uint32Array(keys.length);
  for (let unit = 1; unit <= largest; unit *= DIGITS) {
    sortDigit(keys, unit, from, into);
    [from, into] = [into, from];
  }
  return from;
}

function sortDigit(keys: Float64Array, unit: number, from: Uint32Array, into: Uint32Array): void {
  const places = new Uint32Array(DIGITS);
  const scale = 1 / unit;
  for (const key of keys) places[Math.trunc(key * scale) % DIGITS]!++;
  let place = 0;
  for (let digit = 0; digit < DIGITS; digit++) {
    const count = places[digit]!;
    places[digit] = place;
    place += count;
  }
  for (const row of from) {
    const digit = Math.trunc(keys[row]! * scale) % DIGITS;
    into[places[digit]!++] = row;
  }
}
