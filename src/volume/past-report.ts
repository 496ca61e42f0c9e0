/**
 * What can be asked about a volume's past, and the answers: plain values, ready for JSON. Every
 * answer is a page of bounded size that says where the next one begins.
 */
import type { ByteCount, ByteOffset, Generation, Micros } from '../base/units.ts';
import type { PointInTime, SeenBy } from './report.ts';
import type { Uuid } from '../base/identity.ts';

/** More in one answer would not fit a line of the control protocol. */
export const PAGE_MAX = 1000;

/** What can be asked about: the moments from horizon to head of a disk of so many bytes. */
export interface PastWindow {
  readonly size: ByteCount;
  readonly horizon: PointInTime;
  readonly head: PointInTime;
}

/** A moment as a stream names it. */
export interface SentPoint extends PointInTime {
  /** Of the volume. */
  readonly volume: Uuid;
  readonly lineage: Uuid;
  readonly size: ByteCount;
  /** Of a snapshot of that moment, if it has one. */
  readonly label: string | undefined;
}

export interface ChangedQuery {
  /** The two moments, in either order. */
  readonly from: Generation;
  readonly to: Generation;
  /** Where to go on. */
  readonly offset: ByteOffset;
  /** 1 to PAGE_MAX. */
  readonly rangesMax: number;
}

/** What changed blocks became: what they hold at the moment `to`. */
export const BECAME = ['data', 'zeros'] as const;
export type Became = (typeof BECAME)[number];

export interface ChangedRange {
  readonly offset: ByteOffset;
  readonly length: ByteCount;
  readonly became: Became;
}

export interface ChangedPage {
  /** Ascending and apart; neighbours of one kind are one range, but for the ends of a page. */
  readonly ranges: readonly ChangedRange[];
  /** Undefined: the end of the volume was reached. */
  readonly next: ByteOffset | undefined;
}

export interface VersionsQuery {
  /** Any byte of the block. */
  readonly offset: ByteOffset;
  /** The newest generation that is asked for; default: the head. */
  readonly at?: Generation | undefined;
  /** 1 to PAGE_MAX. */
  readonly versionsMax: number;
}

/**
 * `base`: never written, so what the volume is based on; `blank`: zeros, because it was never written
 * or was trimmed before the window; `lost`: a round could
 * not save its content; `unknown`: the checksum that would tell is damaged.
 */
export const VERSION_KINDS = ['data', 'trim', 'zero', 'base', 'blank', 'lost', 'unknown'] as const;
export type VersionKind = (typeof VERSION_KINDS)[number];

export interface VersionInfo {
  readonly kind: VersionKind;
  /** The request that made it; undefined: from before the window, and no longer known. */
  readonly generation: Generation | undefined;
  /** When that request was accepted; undefined: before the window. */
  readonly wallUs: Micros | undefined;
  /** What that request changed in all, in whole blocks; undefined: before the window. */
  readonly requestBytes: ByteCount | undefined;
  /** The moments that still show it. */
  readonly seenBy: SeenBy;
}

export interface VersionsPage {
  /** Of the block. */
  readonly offset: ByteOffset;
  /** Newest first; the last one of the last page is what the block held at the horizon. */
  readonly versions: readonly VersionInfo[];
  readonly next: Generation | undefined;
}

/** A pattern is at most this long, so that it touches two blocks at most. */
export const PATTERN_BYTES_MAX = 1024;

export interface SearchQuery {
  /** 1 to PATTERN_BYTES_MAX bytes. */
  readonly pattern: Uint8Array;
  /** The moments that are looked at: from <= to. */
  readonly from: Generation;
  readonly to: Generation;
  /** Where a place may begin: [offset, end). */
  readonly offset: ByteOffset;
  readonly end: ByteOffset;
  /** Where to go on: `offset`, or what the page before gave as `next`. */
  readonly next: ByteOffset;
  /** Also places that have the pattern all the time; then every block is read. */
  readonly throughout: boolean;
  /** 1 to PAGE_MAX; the places of the block that reaches it are all named. */
  readonly spellsMax: number;
}

/** A place and a span of time in which it has the pattern: the moments from `since` to `last`. */
export interface Spell {
  readonly offset: ByteOffset;
  /** The request that brought it; undefined: it was there at the first moment that was asked. */
  readonly since: PointInTime | undefined;
  /** The newest moment that has it: the one that was asked last, or that before `gone`. */
  readonly last: Generation;
  /** The request that took it away; undefined: it is there at the last moment that was asked. */
  readonly gone: PointInTime | undefined;
}

export interface SearchPage {
  /** In order of their place; of one place, newest first. */
  readonly spells: readonly Spell[];
  readonly next: ByteOffset | undefined;
  /** Versions of blocks that were read, each once. */
  readonly versions: number;
  /** Places that had the pattern all the time and are not named. */
  readonly throughout: number;
  /** Versions that could not be read; the pattern may have been there. */
  readonly unreadable: number;
  /** Spells that were left out, because one block had too many. */
  readonly left: number;
}
