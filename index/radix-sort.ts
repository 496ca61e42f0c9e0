/**
 * Sorts rows by a numeric key with up to 53 bits: least significant digit first, stable, in O(rows).
 *
 * Invariant: the order is a permutation of the rows, and keys do not decrease along it.
 */
const DIGIT_BITS = 11;
const DIGITS = 1 << DIGIT_BITS;

/**
 * Yields after each part of the work, so that the caller may let others go on between.
 * @param keys - whole numbers from 0 up to 2^53 - 1; borrowed, not changed
 * @returns the row numbers in key order; rows with equal keys keep their order
 */
export function* sortedOrder(keys: Float64Array): Generator<undefined, Uint32Array> {
  const rows = keys.length;
  let order = new Uint32Array(rows);
  let largest = 0;
  for (let row = 0; row < rows; row++) {
    order[row] = row;
    if (keys[row]! > largest) largest = keys[row]!;
  }
  let spare = new Uint32Array(rows);
  const digits = new Uint16Array(rows);
  for (let unit = 1; unit <= largest; unit *= DIGITS) {
    const scale = 1 / unit;
    // The low 32 bits of the quotient hold the digit, whatever is above them.
    for (let row = 0; row < rows; row++)
      digits[row] = Math.trunc(keys[row]! * scale) & (DIGITS - 1);
    yield undefined;
    sortDigit(digits, order, spare);
    [order, spare] = [spare, order];
    yield undefined;
  }
  return order;
}

function sortDigit(digits: Uint16Array, from: Uint32Array, into: Uint32Array): void {
  const places = new Uint32Array(DIGITS);
  for (let row = 0; row < digits.length; row++) places[digits[row]!]!++;
  let place = 0;
  for (let digit = 0; digit < DIGITS; digit++) {
    const count = places[digit]!;
    places[digit] = place;
    place += count;
  }
  for (let position = 0; position < from.length; position++) {
    const row = from[position]!;
    into[places[digits[row]!]!++] = row;
  }
}
