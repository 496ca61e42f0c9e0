/** What a run of power cuts did, counted. */
export interface PowerCutReport {
  cuts: number;
  kills: number;
  requests: number;
  flushes: number;
  rounds: number;
  /** Losses while recovery was running. */
  inRecovery: number;
  moments: number;
  snapshots: number;
  /** Recoveries that cut a torn tail. */
  tails: number;
  /** With trouble: failed syncs and writes, how often the log was written again elsewhere, */
  faults: number;
  reslots: number;
  /** how often that failed too, and the volume turned read-only, */
  readOnly: number;
  /** and how often somebody was told so: a client, or who opened the volume. */
  refused: number;
  digest: number;
}

export function blankReport(): PowerCutReport {
  return {
    cuts: 0,
    kills: 0,
    requests: 0,
    flushes: 0,
    rounds: 0,
    inRecovery: 0,
    moments: 0,
    snapshots: 0,
    tails: 0,
    faults: 0,
    reslots: 0,
    readOnly: 0,
    refused: 0,
    digest: 0,
  };
}
