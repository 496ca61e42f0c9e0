/** What an open volume has done, counted. */
export class Counters {
  reads = 0;
  readBytes = 0;
  writes = 0;
  writeBytes = 0;
  trims = 0;
  zeroes = 0;
  flushes = 0;
  rounds = 0;
  settledBlocks = 0;
  /** Blocks of which a read met a damaged copy, and of a moment that is kept. */
  readErrors = 0;
  /** Of those, answered from another copy. */
  readRescues = 0;
  /** Damaged copies that a scrub wrote again. */
  repairs = 0;
}
