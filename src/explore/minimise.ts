/**
 * Delta debugging (Zeller and Hildebrandt, 2002): of a set that makes something fail, a part that
 * still does, and of which nothing can be left out.
 */

/**
 * @param items - makes it fail as a whole
 * @param firstFailing - of several parts the first one that fails too, or undefined
 * @returns a part that fails, and does not when any one of its members is left out
 */
export async function minimise<T>(
  items: readonly T[],
  firstFailing: (parts: readonly (readonly T[])[]) => Promise<readonly T[] | undefined>,
): Promise<readonly T[]> {
  let now = items;
  let pieces = 2;
  if (now.length > 0 && (await firstFailing([[]])) !== undefined) return [];
  while (now.length >= 2) {
    const parts = split(now, pieces);
    const part = await firstFailing(parts);
    if (part !== undefined) {
      now = part;
      pieces = 2;
      continue;
    }
    // With two pieces, what is left without one is the other, which was tried.
    const rests =
      pieces === 2 ? [] : parts.map((_, at) => parts.filter((__, i) => i !== at).flat());
    const rest = await firstFailing(rests);
    if (rest !== undefined) {
      now = rest;
      pieces = Math.max(2, pieces - 1);
      continue;
    }
    if (pieces >= now.length) return now;
    pieces = Math.min(now.length, pieces * 2);
  }
  return now;
}

/** Nearly equal parts, in order, none empty. */
function split<T>(items: readonly T[], pieces: number): readonly (readonly T[])[] {
  return Array.from({ length: pieces }, (_, at) =>
    items.slice(
      Math.floor((items.length * at) / pieces),
      Math.floor((items.length * (at + 1)) / pieces),
    ),
  );
}
