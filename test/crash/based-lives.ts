/**
 * Lives of a volume that is based on another disk: what it never wrote is the base's, at every moment,
 * whatever is trimmed, settled, kept, cut or rolled back.
 */
import { runPast } from '../volume/past-run.ts';
import type { OneSeed } from './one-seed.ts';
import { runPinnedLives } from './pinned-lives.ts';
import { runRollbackLives } from './rollback-lives.ts';

/** One of three kinds of life, by the seed. */
export async function runBasedLives(options: OneSeed): Promise<void> {
  const all = { ...options, isBased: true };
  const kind = options.seed % 3;
  if (kind === 0) await runPinnedLives({ ...all, lives: 4, steps: 120 });
  else if (kind === 1) await runRollbackLives(all);
  else await runPast(all);
}
