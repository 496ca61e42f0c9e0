/**
 * From a script that fails to a short one that fails for the same law: what comes after the failure
 * goes first, then pieces of halving length, and fast-check makes the values of the rest small.
 */
import fc from 'fast-check';
import { LawBroken } from './law.ts';
import { runLife } from './life.ts';
import { step, type Script, type Step } from './steps.ts';

/** What a failure is about, so that shrinking does not wander to another one. */
function subject(error: unknown): string {
  if (error instanceof LawBroken) return `law ${error.law} ${error.message.slice(-12)}`;
  return error instanceof Error ? `${error.name} ${error.message.slice(0, 24)}` : String(error);
}

interface Failure {
  readonly error: unknown;
  /** Steps that had begun. */
  readonly length: number;
}

export async function failure(script: Script): Promise<Failure | undefined> {
  let length = 0;
  try {
    await runLife(script, {
      trace: (at) => {
        length = at + 1;
      },
    });
    return undefined;
  } catch (error) {
    return { error, length };
  }
}

class Shrinker {
  readonly #script: Script;
  readonly #about: string;
  readonly #isOver: () => boolean;
  steps: readonly Step[];

  constructor(script: Script, first: Failure, isOver: () => boolean) {
    this.#script = script;
    this.#about = subject(first.error);
    this.#isOver = isOver;
    this.steps = script.steps.slice(0, first.length);
  }

  /** Takes over what fails alike. */
  async try(steps: readonly Step[]): Promise<boolean> {
    const failed = await failure({ ...this.#script, steps });
    if (failed === undefined || subject(failed.error) !== this.#about) return false;
    this.steps = steps.slice(0, failed.length);
    return true;
  }

  async dropPieces(): Promise<void> {
    for (let size = Math.ceil(this.steps.length / 2); ; size = Math.ceil(size / 2)) {
      let isShorter = false;
      for (let end = this.steps.length; end > 0 && !this.#isOver();) {
        const from = Math.max(0, end - size);
        const rest = [...this.steps.slice(0, from), ...this.steps.slice(end)];
        if (await this.try(rest)) isShorter = true;
        end = Math.min(from, this.steps.length);
      }
      if ((size === 1 && !isShorter) || this.#isOver()) return;
    }
  }

  async shrinkValues(limitMs: number): Promise<void> {
    const all = fc.tuple(...this.steps.map(() => step));
    const property = fc.asyncProperty(all, async (steps) => {
      if (await this.try(steps)) throw new Error('it fails alike');
    });
    await fc.check(property, {
      numRuns: 1,
      examples: [[[...this.steps]]],
      interruptAfterTimeLimit: limitMs,
    });
  }
}

/**
 * @param limitMs - of real time
 * @returns the shortest script that was found
 */
export async function shrink(
  script: Script,
  first: Failure,
  { limitMs, nowMs }: { readonly limitMs: number; readonly nowMs: () => number },
): Promise<Script> {
  const end = nowMs() + limitMs;
  const shrinker = new Shrinker(script, first, () => nowMs() > end);
  await shrinker.dropPieces();
  const left = end - nowMs();
  if (left > 0) await shrinker.shrinkValues(left);
  return { ...script, steps: shrinker.steps };
}
