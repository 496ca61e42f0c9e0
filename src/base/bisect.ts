/** Search by halving. */

/**
 * @param count - indices 0 to `count` - 1, of which the first few fulfil `isBefore` and the rest do not
 * @returns how many fulfil it: the index of the first one that does not
 */
export function bisect(count: number, isBefore: (index: number) => boolean): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (isBefore(middle)) low = middle + 1;
    else high = middle;
  }
  return low;
}
