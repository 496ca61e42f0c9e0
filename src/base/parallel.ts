/** Many things at once, but not all of them. Pure. */

/**
 * Does one after the other, so many at a time, in order of their beginning.
 * @throws what the first of them throws, once none is under way any more; some may not have begun
 */
export async function inParallel<T>(
  list: readonly T[],
  width: number,
  each: (one: T, at: number) => Promise<void>,
): Promise<void> {
  // One iterator for all of them.
  const rest = list.entries();
  const failures: unknown[] = [];
  const work = async (): Promise<void> => {
    for (const [at, one] of rest) {
      if (failures.length > 0) return;
      try {
        await each(one, at);
      } catch (error) {
        failures.push(error);
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(width, list.length) }, work));
  if (failures.length > 0) throw failures[0];
}
