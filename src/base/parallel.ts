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
  let hasFailed = false;
  const work = async (): Promise<void> => {
    for (const [at, one] of rest) {
      if (hasFailed) return;
      try {
        await each(one, at);
      } catch (error) {
        hasFailed = true;
        throw error;
      }
    }
  };
  const workers = Array.from({ length: Math.min(width, list.length) }, work);
  await Promise.allSettled(workers);
  await Promise.all(workers);
}
