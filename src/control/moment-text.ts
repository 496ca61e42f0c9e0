/**
 * A moment as the description of an export tells of it, and read back from there: over NBD nothing
 * else says which lineage a generation is of.
 */
import { isUuid, type Uuid } from '../base/identity.ts';
import { generation, type Generation, type Micros } from '../base/units.ts';
import { timeText } from '../volume/moment.ts';

export interface ToldMoment {
  readonly generation: Generation;
  readonly lineage: Uuid;
}

const MOMENT = /, generation (\d{1,16}), read-only; lineage ([0-9a-f-]{36})$/;

export function momentText(moment: ToldMoment & { readonly wallUs: Micros }): string {
  const when = `as it was at ${timeText(moment.wallUs)}, generation ${moment.generation}`;
  return `${when}, read-only; lineage ${moment.lineage}`;
}

/** @returns undefined where no moment is told of */
export function toldMoment(description: string): ToldMoment | undefined {
  const [, number, lineage] = MOMENT.exec(description) ?? [];
  if (number === undefined || lineage === undefined || !isUuid(lineage)) return undefined;
  return { generation: generation(Number(number)), lineage };
}
