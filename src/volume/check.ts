/**
 * `varve check`: every batch header and payload of the log, every sum and block of final storage,
 * and the index against itself. Reads only.
 */
import { isVarveError } from '../base/errors.ts';
import {
  block as blockOf,
  BLOCK_BYTES,
  blockCount,
  byteCount,
  lsn as lsnOf,
} from '../base/units.ts';
import { volumeSeed } from '../format/block-checksum.ts';
import { SUM_DATA, SUM_NEVER } from '../format/layouts.ts';
import type { Sum } from '../format/sums.ts';
import { endOf } from '../../log/batch.ts';
import { payloadProblems, SlotReader } from '../../log/scan.ts';
import type { Segment } from '../../log/segments.ts';
import type { Core } from './core.ts';
import { LATEST } from './reader.ts';
import type { CheckReport, Progress } from './report.ts';

const CHUNK_BLOCKS = 256;
/** A report names this many problems, and counts the rest. */
const PROBLEMS_MAX = 1000;

interface Findings {
  readonly problems: string[];
  readonly checked: string[];
  batches: number;
  logBytes: number;
}

export async function checkVolume(core: Core, progress: Progress): Promise<CheckReport> {
  const findings: Findings = { problems: [], checked: [], batches: 0, logBytes: 0 };
  const total = core.log.stream.nextLsn - (core.log.segments.oldest?.firstLsn ?? 0);
  const steps = total / BLOCK_BYTES + core.blocks;
  for (const segment of core.log.segments.live) {
    await checkSegment(core, segment, findings);
    progress(findings.logBytes / BLOCK_BYTES, steps);
  }
  findings.checked.push(
    `log: ${core.log.segments.live.length} segments, ${findings.batches} batches, ` +
      `${findings.logBytes} bytes: headers, chain, payload checksums`,
  );
  core.check();
  findings.checked.push(
    `index: ${core.index.versions} versions, ${core.index.rangeRecords} ranges, counts of ` +
      `${core.log.segments.live.length} segments, recomputed`,
  );
  const final = await checkFinal(core, findings, (done) =>
    progress(findings.logBytes / BLOCK_BYTES + done, steps),
  );
  const { problems, checked } = findings;
  if (problems.length > PROBLEMS_MAX) {
    const more = problems.length - PROBLEMS_MAX;
    problems.splice(PROBLEMS_MAX, more, `and ${more} more`);
  }
  return {
    ok: problems.length === 0,
    batches: findings.batches,
    versions: core.index.versions,
    logBytes: byteCount(findings.logBytes),
    finalBlocks: blockCount(final.data),
    sumsSectors: final.sectors,
    problems,
    checked,
  };
}

async function checkSegment(core: Core, segment: Segment, findings: Findings): Promise<void> {
  const reader = new SlotReader(core.log.device, core.log.geometry, core.uuid);
  const header = (await reader.headers()).find(({ slot }) => slot === segment.slot);
  if (header?.sequence !== segment.sequence) {
    // A segment that was opened a moment ago has none yet.
    if (segment.header === undefined) {
      findings.problems.push(`segment ${segment.sequence}, slot ${segment.slot}: no header`);
    }
    return;
  }
  const seed = volumeSeed(core.uuid);
  const end = Math.min(segment.endLsn ?? Infinity, core.log.writer.durable.lsn);
  let position = segment.firstLsn;
  let chain = header.checksum;
  while (position < end) {
    const batch = await reader.batchAt(header, position);
    if (batch === undefined || batch.header.chain !== chain) {
      findings.problems.push(
        `segment ${segment.sequence}, slot ${segment.slot}, LSN ${position}: bad batch header`,
      );
      return;
    }
    const payloads = await reader.payloads(header, batch);
    findings.problems.push(...payloadProblems(batch, payloads, seed));
    findings.batches += 1;
    findings.logBytes += endOf(batch) - position;
    position = lsnOf(endOf(batch));
    chain = batch.checksum;
  }
}

async function checkFinal(
  core: Core,
  findings: Findings,
  progress: (done: number) => void,
): Promise<{ data: number; sectors: number }> {
  const { final, index } = core;
  let data = 0;
  let zeros = 0;
  let skipped = 0;
  let lastSector = -1;
  let sectors = 0;
  const buffer = new Uint8Array(CHUNK_BLOCKS * BLOCK_BYTES);
  for (let from = 0; from < core.blocks; from += CHUNK_BLOCKS) {
    const count = Math.min(CHUNK_BLOCKS, core.blocks - from);
    await final.readRaw(blockOf(from), buffer.subarray(0, count * BLOCK_BYTES));
    for (let i = 0; i < count; i++) {
      const block = blockOf(from + i);
      const sum = await sumOrProblem(core, from + i, findings);
      if (sum === undefined) continue;
      const sector = Math.floor(block / 31);
      if (sector !== lastSector) sectors += sum.kind === SUM_NEVER ? 0 : 1;
      lastSector = sector;
      // What an interrupted round left is written again from the log.
      const redone = core.settled < core.horizon.generation && index.find(block, LATEST) !== 0;
      if (redone) {
        skipped += 1;
        continue;
      }
      const content = buffer.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES);
      const problem = final.problem(block, content, sum);
      if (problem !== undefined) findings.problems.push(problem);
      if (sum.kind === SUM_DATA) data += 1;
      else zeros += 1;
    }
    progress(from + count);
  }
  findings.checked.push(
    `final storage: ${data} blocks of data and ${zeros} of zeros against their sums` +
      (skipped === 0 ? '' : `; ${skipped} that the log still has were left out`),
  );
  return { data, sectors };
}

async function sumOrProblem(
  core: Core,
  block: number,
  findings: Findings,
): Promise<Sum | undefined> {
  try {
    return await core.final.sum(blockOf(block));
  } catch (error) {
    if (!isVarveError(error, 'BLOCK_CORRUPT')) throw error;
    findings.problems.push(error.detail);
    return undefined;
  }
}
