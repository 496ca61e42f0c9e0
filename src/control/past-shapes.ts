/** Shapes of the questions about a volume's past, and of the answers. */
import { byteCount, byteOffset, generation, micros } from '../base/units.ts';
import {
  BECAME,
  PATTERN_BYTES_MAX,
  VERSION_KINDS,
  type ChangedPage,
  type ChangedQuery,
  type PastWindow,
  type SearchPage,
  type SearchQuery,
  type SentPoint,
  type VersionsPage,
  type VersionsQuery,
} from '../volume/past-report.ts';
import type { PointInTime } from '../volume/report.ts';
import { seenByShape } from './report-shapes.ts';
import {
  fields,
  flag,
  list,
  oneOf,
  optional,
  ShapeError,
  text,
  unit,
  type Shape,
} from './shape.ts';

const bytes = unit(byteCount);
const offset = unit(byteOffset);
const count = unit(Number);
const generationShape = unit(generation);

export const pointShape: Shape<PointInTime> = fields({
  generation: generationShape,
  wallUs: unit(micros),
});

export const sentShape: Shape<SentPoint> = fields({
  generation: generationShape,
  wallUs: unit(micros),
  volume: text,
  lineage: text,
  size: bytes,
  label: optional(text),
});

export const windowShape: Shape<PastWindow> = fields({
  size: bytes,
  horizon: pointShape,
  head: pointShape,
});

export const changedQueryShape: Shape<ChangedQuery> = fields({
  from: generationShape,
  to: generationShape,
  offset,
  rangesMax: count,
});

export const changedShape: Shape<ChangedPage> = fields({
  ranges: list(fields({ offset, length: bytes, became: oneOf(BECAME) })),
  next: optional(offset),
});

export const versionsQueryShape: Shape<VersionsQuery> = fields({
  offset,
  at: optional(generationShape),
  versionsMax: count,
});

export const versionsShape: Shape<VersionsPage> = fields({
  offset,
  versions: list(
    fields({
      kind: oneOf(VERSION_KINDS),
      generation: optional(generationShape),
      wallUs: optional(unit(micros)),
      requestBytes: optional(bytes),
      seenBy: seenByShape,
    }),
  ),
  next: optional(generationShape),
});

/** Bytes, two hexadecimal digits each. */
const hex: Shape<Uint8Array> = (value, place) => {
  const isHex = typeof value === 'string' && /^(?:[0-9a-f]{2})+$/i.test(value);
  if (!isHex || value.length > PATTERN_BYTES_MAX * 2) {
    throw new ShapeError(place, `1 to ${PATTERN_BYTES_MAX} bytes in hexadecimal digits`);
  }
  return Buffer.from(value, 'hex');
};

export const searchQueryShape: Shape<SearchQuery> = fields({
  pattern: hex,
  from: generationShape,
  to: generationShape,
  offset,
  end: offset,
  next: offset,
  throughout: flag,
  spellsMax: count,
});

export const searchShape: Shape<SearchPage> = fields({
  spells: list(
    fields({
      offset,
      since: optional(pointShape),
      last: generationShape,
      gone: optional(pointShape),
    }),
  ),
  next: optional(offset),
  versions: count,
  throughout: count,
  unreadable: count,
  left: count,
});
