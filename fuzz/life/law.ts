/** What is held against the seven laws of the design; a violation names the law. */
export const LAWS = {
  1: 'prefix',
  2: 'one order',
  3: 'any moment',
  4: 'pins hold',
  5: 'nothing silent',
  6: 'bounded',
  7: 'a failed sync is never believed',
} as const;

export type Law = keyof typeof LAWS;

export class LawBroken extends Error {
  readonly law: Law;

  constructor(broken: Law, what: string, options?: ErrorOptions) {
    super(`law ${broken} (${LAWS[broken]}) is broken: ${what}`, options);
    this.name = 'LawBroken';
    this.law = broken;
  }
}

/** @param what - what should hold, in words; a function where the words cost something */
export function law(which: Law, holds: boolean, what: string | (() => string)): asserts holds {
  if (!holds) throw new LawBroken(which, typeof what === 'string' ? what : what());
}
