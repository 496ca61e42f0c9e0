/**
 * What lies in fixed places of the log device: both superblock copies and the checkpoint that they
 * name. Memory has the truth of them.
 */
import { isVarveError } from '../base/errors.ts';
import { BLOCK_BYTES, lsn, type Lsn } from '../base/units.ts';
import { readCheckpoint } from '../../log/checkpoint.ts';
import { mendSuperblocks } from '../../log/mend.ts';
import type { ScrubRun } from './scrub-run.ts';

export class ScrubFixed {
  readonly #run: ScrubRun;
  /** Records before this are in the checkpoint, too. */
  checkpointLsn: Lsn = lsn(0);

  constructor(run: ScrubRun) {
    this.#run = run;
  }

  async all(): Promise<void> {
    const problems = await mendSuperblocks(this.#run.core.log, this.#run);
    for (const { place, why, isMended } of problems) {
      this.#run.note({
        place: 'superblock',
        what: `copy in block ${place} of the log: ${why}`,
        repairedFrom: isMended ? 'memory' : undefined,
      });
    }
    await this.#run.step(2 * BLOCK_BYTES);
    await this.#checkpoint();
  }

  async #checkpoint(): Promise<void> {
    const { core, repair } = this.#run;
    const { log } = core;
    const problem = await log.undisturbed(async (superblock) => {
      const { volume, geometry, checkpointArea: area, checkpointSequence } = superblock;
      const place = { volume, geometry, area };
      try {
        this.checkpointLsn = (
          await readCheckpoint(log.device, place, checkpointSequence)
        ).streamLsn;
        return undefined;
      } catch (error) {
        if (!isVarveError(error)) throw error;
        return error.detail;
      }
    });
    if (problem === undefined) return;
    // The other area is written and synced before it is named: the damaged one is not needed then.
    if (repair) await this.publishCheckpoint();
    this.#run.note({
      place: 'checkpoint',
      what: problem,
      repairedFrom: repair ? 'memory' : undefined,
    });
  }

  /** The catalogue as memory has it, as a new checkpoint. */
  async publishCheckpoint(): Promise<void> {
    const { core } = this.#run;
    let streamLsn = this.checkpointLsn;
    await core.log.publishCheckpoint(() => {
      const content = core.checkpoint();
      streamLsn = content.streamLsn;
      return content;
    }, {});
    this.checkpointLsn = streamLsn;
  }
}
