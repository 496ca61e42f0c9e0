/** Whether bytes are all zero, quickly: most data shows that it is not in its first bytes. */
const ZEROS = Buffer.alloc(65536);

/** Looks at `bytes` from `start` to `end`. */
export function isZero(bytes: Buffer, start: number, end: number): boolean {
  if (start < end && (bytes[start] !== 0 || bytes[end - 1] !== 0)) return false;
  for (let at = start; at < end; at += ZEROS.length) {
    const length = Math.min(ZEROS.length, end - at);
    if (bytes.compare(ZEROS, 0, length, at, at + length) !== 0) return false;
  }
  return true;
}
