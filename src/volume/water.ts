/**
 * How full log and index may get before rounds begin, and down to where they free them. Of the log: parts
 * of its slots.
 */

/** A round starts when this part of the slots is in use, */
export const HIGH_WATER = 0.75;
/** and frees down to this. */
export const LOW_WATER = 0.5;
/**
 * From here on rounds pass open moments, which read on from before-images, and writes that are younger
 * than every write should stay openable; of those they free down to `HIGH_WATER` only.
 */
export const CRITICAL_WATER = 0.875;
/**
 * Trims carry no payload, so log bytes alone don't bound the records of the window. One takes about
 * 1.4 kB of RAM while it is there.
 */
export const RANGE_RECORDS_MAX = 32_768;
