/** What every directed run of a seed is told; each has its own story beside it. */
export interface OneSeed {
  readonly seed: number;
  /** Told of each step, for who watches; nothing else depends on it. */
  readonly onStep?: () => void;
}
