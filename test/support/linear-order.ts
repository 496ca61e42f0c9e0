/** Whether requests that were partly in flight together can stand in one order. Pure. */

/** When a request was made, and when it was answered; both of one count of events. */
interface Flight {
  readonly made: number;
  readonly answered: number;
}

/**
 * @param edges - from each request to those that must stand behind it, beside those that were made
 *   after it was answered
 */
export function inOrder<T extends Flight>(
  requests: readonly T[],
  edges: ReadonlyMap<T, ReadonlySet<T>>,
): boolean {
  const waiting = new Map<T, number>(requests.map((request) => [request, 0]));
  for (const later of edges.values()) {
    for (const request of later) waiting.set(request, (waiting.get(request) ?? 0) + 1);
  }
  let left = [...requests].sort((a, b) => a.made - b.made);
  while (left.length > 0) {
    // Whoever was made before the first of them was answered may be next.
    const first = left.reduce((least, { answered }) => Math.min(least, answered), Infinity);
    const next = left.filter((one) => one.made < first && waiting.get(one) === 0);
    if (next.length === 0) return false;
    for (const one of next) {
      for (const later of edges.get(one) ?? []) waiting.set(later, (waiting.get(later) ?? 1) - 1);
    }
    const taken = new Set(next);
    left = left.filter((one) => !taken.has(one));
  }
  return true;
}
