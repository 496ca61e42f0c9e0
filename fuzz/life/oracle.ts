/**
 * What the faults so far may excuse, and nothing else: which versions may be unreadable, whether
 * an opening may be refused, and which generation a recovery must reach all the same.
 *
 * Wrong data is never excused. A version is named by its block and generation, whatever copies it
 * has: damage to one of them may make it unreadable, so this oracle is lenient where another copy
 * was left; test/volume tells those stories one by one.
 */
import { isVarveError } from '../../src/base/errors.ts';
import { BLOCK_BYTES, slot } from '../../src/base/units.ts';
import { somePlaces } from '../../src/device/some-places.ts';
import { SUMS_ENTRIES, SUMS_SECTOR_BYTES, SUPERBLOCK_BLOCKS } from '../../src/format/layouts.ts';
import type { Volume } from '../../src/volume/volume.ts';
import { CHECKPOINT_OFFSET, slotOffset } from '../../log/geometry.ts';
import type { Log } from '../../log/log.ts';
import type { VolumeModel } from '../../test/model/volume-model.ts';

export type DiskName = 'log' | 'final' | 'sums' | 'undo';

interface Place {
  readonly block: number;
  readonly generation: number;
}

/** What a sealed batch states to be durable; it counts once the batch is durable itself. */
interface Claim {
  /** Of the batch. */
  readonly lsn: number;
  readonly endLsn: number;
  readonly generation: number;
}

export class Oracle {
  readonly #model: VolumeModel;
  /** `block:generation`. */
  readonly #suspects = new Set<string>();
  #volume: Volume | undefined;
  /** Up to here rounds came, as far as that was seen: what was replaced has its image. */
  #replaced = 0;
  /** Where payloads lie in the stream. */
  readonly #places = new Map<number, Place>();
  #claims: Claim[] = [];
  /** Positions behind headers that were touched: an opening may not find its way there. */
  #unlisted: { readonly from: number; readonly of: { readonly endLsn?: number | undefined } }[] =
    [];
  /** Those of durable batches. */
  #proofs: Claim[] = [];
  /** The log's bytes were touched by a fault since the last opening: its end may be cut. */
  isLogTouched = false;
  /** What is damaged may stop an opening. */
  mayRefuse = false;
  /** Something was touched once; where nothing was, nothing may be found. */
  wasDamaged = false;
  /**
   * Final storage or its sums were touched. Rounds write pages of sums anew from what they find, so
   * healing may come too late, and the volume is rightly refused from then on.
   */
  isHomeTouched = false;
  /** Before-images may be damaged, those that come as well: what they hold may be unreadable. */
  isUndoTouched = false;
  /** The undo disk refused a read in this life: what its opening did not find comes back with the next. */
  #wasUndoUnread = false;
  /** A device refused reads in this life; an answer may come after it works again. */
  wasRefused = false;
  /** Reads may fail anywhere until the fault has passed. */
  mayFailReads = false;
  /** Writing or syncing the log failed in this life, or may fail yet. */
  logFailures = 0;
  /** The same for all other disks. */
  finalFailures = 0;
  /** Of those, for the undo disk: an opening clears leftovers of a crash there. */
  undoFailures = 0;
  /** Snapshots, or the file system below, left a round no room in this life: open moments end then. */
  wasUndoFull = false;
  /** What of that is still so, or planned. */
  readonly #troubles: DiskName[] = [];
  /** Places that can't be read at present: blocks of final storage, or a whole disk. */
  readonly #unreadable: {
    readonly disk: DiskName;
    readonly first: number;
    readonly end: number;
  }[] = [];

  constructor(model: VolumeModel) {
    this.#model = model;
  }

  /** A generation that something durable, and untouched, states to be durable. */
  get proven(): number {
    return this.#proofs.reduce((most, { generation }) => Math.max(most, generation), 0);
  }

  put(lsn: number, block: number, generation: number): void {
    this.#places.set(lsn, { block, generation });
    // What can't be read from the log when its round comes is lost for good.
    if (this.#unreadable.some(({ disk }) => disk === 'log')) this.suspect(block, generation);
  }

  /** Follows what the batches and superblocks of one opening state. */
  listen(volume: Volume, isAlive: () => boolean): void {
    const { log, undo } = volume.core;
    const { stream, writer } = log;
    const put = undo.put.bind(undo);
    let wasFullBelow = false;
    undo.put = async (...images) => {
      try {
        await put(...images);
        wasFullBelow = false;
      } catch (error) {
        // Once it may be over in a moment.
        const isFullBelow = isVarveError(error, 'DISK_FULL');
        const isFull = isVarveError(error, 'UNDO_FULL') || (isFullBelow && wasFullBelow);
        if (isAlive() && isFull) this.wasUndoFull = true;
        wasFullBelow = isFullBelow;
        throw error;
      }
    };
    const seal = stream.seal.bind(stream);
    this.#claims = [];
    stream.seal = () => {
      const before = stream.sealedLsn;
      const { generation } = writer.durable;
      seal();
      if (isAlive() && stream.sealedLsn > before) {
        this.#claims.push({ lsn: before, endLsn: stream.sealedLsn, generation });
        this.#settleClaims(writer.durable.lsn);
      }
    };
  }

  #settleClaims(durableLsn: number): void {
    const open = this.#claims.findIndex(({ endLsn }) => endLsn > durableLsn);
    this.#proofs.push(...this.#claims.splice(0, open < 0 ? this.#claims.length : open));
  }

  /**
   * Whether that version, in whichever copy, was touched by a fault.
   * @param generation - 0: of a block that was given up with its sector, whatever it was
   */
  isSuspect(block: number, generation: number): boolean {
    if (this.mayFailReads || this.#unreadable.length > 0) return true;
    const versions = generation === 0 ? this.#model.generationsOf(block) : [generation];
    return versions.some(
      (one) => this.#suspects.has(`${block}:${one}`) || this.#isImage(block, one),
    );
  }

  mayFail(block: number, generation: number): boolean {
    if (this.mayFailReads) return true;
    if (this.#isImage(block, generation)) return true;
    for (const { disk, first, end } of this.#unreadable) {
      if (disk === 'undo') continue;
      if (disk !== 'final' || (block >= first && block < end)) return true;
    }
    return this.#suspects.has(`${block}:${this.#model.generationAt(block, generation)}`);
  }

  /** What the block was then has only a before-image by now, and that may be damaged. */
  #isImage(block: number, generation: number): boolean {
    if (!this.isUndoTouched && !this.#wasUndoUnread) return false;
    const { settled = 0, horizon } = this.#volume?.core ?? {};
    this.#replaced = Math.max(this.#replaced, settled, horizon?.generation ?? 0);
    const version = this.#model.generationAt(block, generation);
    return version !== this.#model.generationAt(block, Math.max(generation, this.#replaced));
  }

  /** Writes and syncs of a disk fail from now on, or the next time. */
  trouble(disk: DiskName): void {
    this.wasDamaged = true;
    this.#troubles.push(disk);
    this.#countTroubles();
  }

  #countTroubles(): void {
    for (const disk of this.#troubles) {
      if (disk === 'log') this.logFailures += 1;
      else this.finalFailures += 1;
      if (disk === 'undo') this.undoFailures += 1;
    }
  }

  unreadable(volume: Volume | undefined, disk: DiskName, offset: number, length: number): void {
    this.wasRefused = true;
    const first = offset / BLOCK_BYTES;
    this.#unreadable.push({ disk, first, end: first + length / BLOCK_BYTES });
    this.wasDamaged = true;
    this.#touchPlace(volume, disk, offset, length);
    // Later blocks of the log may come to lie there; and a page of sums is for many blocks.
    if (disk === 'log')
      for (const { block, generation } of this.#places.values()) this.suspect(block, generation);
  }

  /**
   * An opening may be refused for what can't be read at present: it needs it, or a crash left open
   * what it was.
   * @param wasClosed - in order
   */
  mayNeedUnread(wasClosed: boolean): boolean {
    if (this.#volume === undefined) return this.#unreadable.length > 0;
    const { log, final } = this.#volume.core;
    const copies = this.#copiesUnread;
    // The other copy does not say that it was closed; and a cut may have torn it.
    const isSure = wasClosed && copies === 0;
    return (
      copies > (wasClosed ? 1 : 0) ||
      this.#isAway('final', final.blocks) ||
      this.#isAway('sums', final.sidecar.pages) ||
      this.#unreadable.some(({ disk, first, end }) => {
        if (disk !== 'log') return false;
        for (let block = first; block < end; block++) {
          if (this.#isNeeded(log, block * BLOCK_BYTES, isSure)) return true;
        }
        return false;
      })
    );
  }

  /** The superblock that is read may not be the one that says that the volume was closed. */
  get isCopyUnread(): boolean {
    return this.#copiesUnread > 0;
  }

  get #copiesUnread(): number {
    return SUPERBLOCK_BLOCKS.filter((block) => this.#isUnread('log', block)).length;
  }

  #isUnread(disk: DiskName, block: number): boolean {
    return this.#unreadable.some(
      (one) => one.disk === disk && block >= one.first && block < one.end,
    );
  }

  /** None of the places answers by which a bad one is told from a device that is away. */
  #isAway(disk: DiskName, blocks: number): boolean {
    return somePlaces(blocks).every((block) => this.#isUnread(disk, block));
  }

  /** @param isSure - the superblock says where the log ends */
  #isNeeded({ geometry, segments, writer }: Log, at: number, isSure: boolean): boolean {
    if (at < slotOffset(geometry, slot(0))) return at >= CHECKPOINT_OFFSET;
    const slotAt = slot(Math.floor((at - slotOffset(geometry, slot(0))) / geometry.segmentBytes));
    const segment = segments.live.find((one) => one.slot === slotAt);
    if (segment === undefined) return !isSure;
    const { firstLsn, endLsn = writer.durable.lsn } = segment;
    const lsn = firstLsn + (at - slotOffset(geometry, slotAt) - BLOCK_BYTES);
    if (lsn >= endLsn) return !isSure;
    const payload = lsn < firstLsn ? undefined : this.#places.get(lsn);
    // Headers lead on, and records are the catalogue.
    if (payload === undefined) return true;
    return !isSure && payload.generation > this.proven;
  }

  /** All disks work again. */
  endTroubles(): void {
    this.#troubles.length = 0;
    for (const { disk, first, end } of this.#unreadable) {
      const [offset, length] = [first * BLOCK_BYTES, (end - first) * BLOCK_BYTES];
      // What came to lie there meanwhile may have been given up when its before-image was due.
      if (disk === 'final') this.#touchFinal(undefined, offset, length);
      else if (disk === 'sums') this.#touchSums(undefined, offset, length);
    }
    this.#unreadable.length = 0;
    this.mayFailReads = false;
  }

  suspect(block: number, generation: number): void {
    this.#suspects.add(`${block}:${generation}`);
  }

  /** Blocks of a moment that final storage and log have replaced: their images may be gone. */
  suspectImages({ core }: Volume, moment: number): void {
    const replaced = Math.max(this.#replaced, core.settled, core.horizon.generation);
    for (let block = 0; block < this.#model.blocks; block++) {
      const version = this.#model.generationAt(block, moment);
      if (version !== this.#model.generationAt(block, replaced)) this.suspect(block, version);
    }
  }

  /**
   * A range of a disk was touched by a fault.
   * @param volume - undefined: while it is being opened, so that nobody knows what lies there
   */
  touch(volume: Volume | undefined, disk: DiskName, offset: number, length: number): void {
    this.wasDamaged = true;
    if (disk === 'undo') this.isUndoTouched = true;
    else if (disk === 'log') this.isLogTouched = true;
    else this.isHomeTouched = true;
    this.#touchPlace(volume, disk, offset, length);
  }

  #touchPlace(volume: Volume | undefined, disk: DiskName, offset: number, length: number): void {
    if (disk === 'log') this.#touchLog(volume, offset, length);
    else if (disk === 'final') this.#touchFinal(volume, offset, length);
    else if (disk === 'sums') this.#touchSums(volume, offset, length);
    else this.#wasUndoUnread = true;
  }

  #touchLog(volume: Volume | undefined, offset: number, length: number): void {
    if (volume === undefined) {
      for (const { block, generation } of this.#places.values()) this.suspect(block, generation);
      return;
    }
    const { segments, geometry } = volume.core.log;
    for (const segment of segments.live) {
      const start = slotOffset(geometry, segment.slot) + BLOCK_BYTES;
      const from = Math.max(start, Math.floor(offset / BLOCK_BYTES) * BLOCK_BYTES);
      const to = Math.min(start + geometry.segmentBytes - BLOCK_BYTES, offset + length);
      const { firstLsn } = segment;
      const isHeader = offset < start && offset + length > start - BLOCK_BYTES;
      if (isHeader) this.#unlisted.push({ from: firstLsn, of: segment });
      const { sealedLsn } = volume.core.log.stream;
      for (let at = from; at < to; at += BLOCK_BYTES) {
        const lsn = firstLsn + (at - start);
        const place = this.#places.get(lsn);
        if (place !== undefined) this.suspect(place.block, place.generation);
        else if (lsn < sealedLsn) this.#unlisted.push({ from: lsn, of: segment });
      }
      const isKept = ({ lsn }: Claim): boolean => {
        const position = start + (lsn - segment.firstLsn);
        return position < from || position >= to;
      };
      this.#claims = this.#claims.filter(isKept);
      this.#proofs = this.#proofs.filter(isKept);
    }
  }

  #touchFinal(volume: Volume | undefined, offset: number, length: number): void {
    const first = Math.floor(offset / BLOCK_BYTES);
    this.#touchBlocks(volume, first, Math.ceil((offset + length) / BLOCK_BYTES));
  }

  #touchSums(volume: Volume | undefined, offset: number, length: number): void {
    const first = Math.floor(offset / SUMS_SECTOR_BYTES) * SUMS_ENTRIES;
    const end = Math.ceil((offset + length) / SUMS_SECTOR_BYTES) * SUMS_ENTRIES;
    this.#touchBlocks(volume, first, Math.min(end, this.#model.blocks));
  }

  /** What lies in final storage now, or will when the round under way has ended. */
  #touchBlocks(volume: Volume | undefined, first: number, end: number): void {
    for (let block = first; block < end; block++) {
      for (const at of this.#homeGenerations(volume, block)) this.suspect(block, at);
    }
  }

  #homeGenerations(volume: Volume | undefined, block: number): readonly number[] {
    if (volume === undefined) return this.#model.generationsOf(block);
    const { settled, horizon } = volume.core;
    return [settled, horizon.generation].map((at) => this.#model.generationAt(block, at));
  }

  /** Positions of payloads that are live, durable and not in the open segment. */
  payloads(volume: Volume): number[] {
    const { segments, writer } = volume.core.log;
    const oldest = segments.oldest?.firstLsn ?? 0;
    const end = Math.min(writer.durable.lsn, segments.newest?.firstLsn ?? 0);
    for (const lsn of this.#places.keys()) if (lsn < oldest) this.#places.delete(lsn);
    return [...this.#places.keys()].filter((lsn) => lsn < end);
  }

  /** A volume was opened: what its recovery accepted is the truth, and its end is given again. */
  opened(volume: Volume): void {
    // Its rounds go on before anybody else uses it.
    this.#volume = volume;
    const endLsn = volume.core.log.writer.durable.lsn;
    for (const { from, of } of this.#unlisted) {
      const { endLsn: end = Infinity } = of;
      for (const [lsn, { block, generation }] of this.#places)
        if (lsn >= from && lsn < end) this.suspect(block, generation);
    }
    this.#unlisted = [];
    for (const lsn of this.#places.keys()) if (lsn >= endLsn) this.#places.delete(lsn);
    this.#proofs = this.#proofs.filter(({ lsn }) => lsn < endLsn);
    this.isLogTouched = false;
    this.#wasUndoUnread = this.#unreadable.some(({ disk }) => disk === 'undo');
    // Who asked before the cut has been answered, or never will be.
    this.wasRefused = this.mayFailReads || this.#unreadable.length > 0;
    this.logFailures = 0;
    this.finalFailures = 0;
    this.undoFailures = 0;
    this.wasUndoFull = false;
    this.#countTroubles();
  }
}
