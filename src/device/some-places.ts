/**
 * Places all over a device: bad ones are for good, and a device that is away may come back whole. So
 * before something is given up as a bad place, one of the others has to answer.
 */
import { isVarveError } from '../base/errors.ts';

const PARTS = 8;

/** Some of [0, count), the first and the last among them. */
export function somePlaces(count: number): readonly number[] {
  return Array.from({ length: PARTS + 1 }, (_, part) => Math.floor(((count - 1) * part) / PARTS));
}

/**
 * Whether one of some places in [0, count) answers; a refusal is no answer.
 * @throws what `answers` throws, but DEVICE_IO
 */
export async function anyAnswers(
  count: number,
  answers: (place: number) => Promise<boolean>,
): Promise<boolean> {
  for (const place of somePlaces(count)) {
    try {
      if (await answers(place)) return true;
    } catch (error) {
      if (!isVarveError(error, 'DEVICE_IO')) throw error;
    }
  }
  return false;
}
