/**
 * The world's faults: one table of stable codes, with the errno an NBD client sees, the exit code
 * of the CLI, what it means and what to do. docs/ERRORS.md is printed from it.
 */
export type Errno =
  'EPERM' | 'EIO' | 'ENOMEM' | 'EINVAL' | 'ENOSPC' | 'EOVERFLOW' | 'ENOTSUP' | 'ESHUTDOWN';

export interface ErrorRow {
  readonly errno: Errno;
  /** 1: it failed; 2: it was asked wrongly. */
  readonly exit: 1 | 2;
  readonly text: string;
  /** The next step for a person. */
  readonly next: string;
}

export const ERRORS = {
  USAGE: {
    errno: 'EINVAL',
    exit: 2,
    text: 'the command line is not understood',
    next: 'run the command with --help',
  },
  VOLUME_UNKNOWN: {
    errno: 'EINVAL',
    exit: 1,
    text: 'there is no volume of that name',
    next: 'run `varve list` to see the names; a blank volume is never made because one is missing',
  },
  VOLUME_EXISTS: {
    errno: 'EINVAL',
    exit: 1,
    text: 'a volume of that name exists already',
    next: 'choose another name',
  },
  VOLUME_NAME_BAD: {
    errno: 'EINVAL',
    exit: 2,
    text: 'the volume name is not usable',
    next: 'use 1 to 64 letters, digits, dots, dashes and underscores, beginning with a letter or digit',
  },
  VOLUME_AMBIGUOUS: {
    errno: 'EINVAL',
    exit: 2,
    text: 'the empty export name needs a directory with exactly one volume',
    next: 'name the volume',
  },
  VOLUME_LOCKED: {
    errno: 'EIO',
    exit: 1,
    text: 'another process has this volume open',
    next: 'stop the other process, or let the command talk to the running server',
  },
  VOLUME_FOREIGN: {
    errno: 'EIO',
    exit: 1,
    text: 'a file of the volume is foreign, older or truncated',
    next: 'put the right file back; nothing was changed',
  },
  VOLUME_CORRUPT: {
    errno: 'EIO',
    exit: 1,
    text: 'flushed history of the volume is damaged',
    next: 'nothing was changed; keep a copy of the files, and run `varve check`',
  },
  VOLUME_FAILED: {
    errno: 'EIO',
    exit: 1,
    text: 'the volume has turned read-only: the log device failed, and failed again elsewhere',
    next: 'read or export what you need, it is all still there; mend the device, then restart the server',
  },
  VERSION_UNKNOWN: {
    errno: 'EIO',
    exit: 1,
    text: 'the on-disk format is of another version',
    next: 'use a build of Varve that knows this version',
  },
  SIZE_BAD: {
    errno: 'EINVAL',
    exit: 2,
    text: 'the size is not usable',
    next: 'give a positive size below 2^53 bytes, such as 10G',
  },
  LOG_TOO_SMALL: {
    errno: 'EINVAL',
    exit: 2,
    text: 'the log is too small',
    next: 'a log holds at least four segments and twice the largest request',
  },
  RING_BAD: {
    errno: 'EINVAL',
    exit: 2,
    text: 'the ring size is not usable',
    next: 'the ring holds at least twice the largest request, and 64 KiB',
  },
  LOG_IN_USE: {
    errno: 'EINVAL',
    exit: 1,
    text: 'the path is already used by a volume, or holds data',
    next: 'give an unused path; a raw device has to be all zeros: once nobody needs what it holds, `blkdiscard --zeroout DEVICE` erases it',
  },
  MOMENT_BAD: {
    errno: 'EINVAL',
    exit: 2,
    text: 'the moment is not understood',
    next: 'write a snapshot name, a time such as 2026-11-21T14:03:27Z, -10m, flush-3 or gen=184467',
  },
  MOMENT_UNKNOWN: {
    errno: 'EINVAL',
    exit: 1,
    text: 'no snapshot or mark has that name',
    next: 'run `varve info NAME`, which shows snapshots and marks',
  },
  MOMENT_OUTSIDE: {
    errno: 'EINVAL',
    exit: 1,
    text: 'the moment is outside the window that the log still covers',
    next: 'choose a moment inside the window; `varve info NAME` shows it',
  },
  MOMENT_FUTURE: {
    errno: 'EINVAL',
    exit: 1,
    text: 'that time is not yet past',
    next: 'choose an earlier time',
  },
  MOMENT_AMBIGUOUS: {
    errno: 'EINVAL',
    exit: 1,
    text: 'that time came twice, because the clock was set back',
    next: 'choose one of the two generations by gen=N',
  },
  HISTORY_EMPTY: {
    errno: 'EINVAL',
    exit: 2,
    text: 'there is no history between these moments',
    next: 'give an earlier moment first; `varve history NAME` shows what was written when',
  },
  HISTORY_TOO_LONG: {
    errno: 'EINVAL',
    exit: 2,
    text: 'there is more history between these moments than can be explored at once',
    next: 'choose moments that are closer to each other',
  },
  CHECK_BAD: {
    errno: 'EINVAL',
    exit: 2,
    text: 'the check command can not judge these states',
    next: 'try it by hand on an export of the moment; it has to end with 0 where the disk is in order',
  },
  MOMENT_BETWEEN: {
    errno: 'EINVAL',
    exit: 1,
    text: 'the moment lies inside a rollback, when the disk was a mixture that no client saw',
    next: 'take the moment before the rollback, or the one at its end; both are named',
  },
  MOMENT_GONE: {
    errno: 'EIO',
    exit: 1,
    text: 'the open moment was given up, because writers needed its space',
    next: 'make a snapshot before opening a moment that must last',
  },
  MOMENT_MIXED: {
    errno: 'EINVAL',
    exit: 1,
    text: 'the disk was never as it was put down between these two moments: a stream was being received',
    next: 'open the moment before or after, which the message names',
  },
  STREAM_BAD: {
    errno: 'EINVAL',
    exit: 1,
    text: 'the stream is damaged, or was not made by `varve send`',
    next: 'send it again; `varve receive NAME --resume-token` says whether a part of it is kept',
  },
  STREAM_CUT: {
    errno: 'EINVAL',
    exit: 1,
    text: 'the stream broke off',
    next: 'go on with `varve send NAME --resume TOKEN`; `varve receive NAME --resume-token` prints the token',
  },
  STREAM_MISFIT: {
    errno: 'EINVAL',
    exit: 1,
    text: 'the stream does not fit what the volume holds',
    next: 'send from the moment that the message names, or a whole disk into a new volume',
  },
  RECEIVE_UNFINISHED: {
    errno: 'EPERM',
    exit: 1,
    text: 'a stream is being received into the volume, or broke off',
    next: 'go on with `varve send --resume` and the token of `varve receive NAME --resume-token`, or give it up with `varve receive NAME --abort`',
  },
  RECEIVE_NONE: {
    errno: 'EINVAL',
    exit: 1,
    text: 'no receive of the volume is unfinished',
    next: 'nothing needs to be done; `varve info NAME` shows what was received last',
  },
  SNAPSHOT_EXISTS: {
    errno: 'EINVAL',
    exit: 1,
    text: 'a snapshot or mark of that name exists already',
    next: 'choose another label, or delete the old one',
  },
  SNAPSHOT_UNKNOWN: {
    errno: 'EINVAL',
    exit: 1,
    text: 'there is no snapshot of that name',
    next: 'run `varve snapshot list NAME`',
  },
  LABEL_BAD: {
    errno: 'EINVAL',
    exit: 2,
    text: 'the label is not usable',
    next: 'use 1 to 64 letters, digits, dots, dashes and underscores that do not read as another moment',
  },
  RETENTION_BAD: {
    errno: 'EINVAL',
    exit: 2,
    text: 'the retention that was asked for is not usable',
    next: 'run `varve retention --help` for what each option takes',
  },
  CATALOGUE_FULL: {
    errno: 'ENOSPC',
    exit: 1,
    text: 'the catalogue has no room for another snapshot or mark',
    next: 'delete snapshots that are no longer needed',
  },
  LOG_FULL: {
    errno: 'ENOSPC',
    exit: 1,
    text: 'the log is full, and a snapshot keeps it from being recycled',
    next: 'delete the snapshot that `varve info NAME` names as the reason',
  },
  UNDO_FULL: {
    errno: 'ENOSPC',
    exit: 1,
    text: 'the space for what snapshots keep is full',
    next: 'delete the snapshot that `varve info NAME` names as the largest',
  },
  DISK_FULL: {
    errno: 'ENOSPC',
    exit: 1,
    text: 'the file system below has no space left',
    next: 'free space there',
  },
  READ_ONLY: {
    errno: 'EPERM',
    exit: 1,
    text: 'a moment is read-only',
    next: 'write to the live volume',
  },
  REQUEST_BAD: {
    errno: 'EINVAL',
    exit: 2,
    text: 'the request lies outside the device',
    next: 'stay within the size of the device',
  },
  REQUEST_TOO_LONG: {
    errno: 'EOVERFLOW',
    exit: 2,
    text: 'the request is longer than the largest request',
    next: 'split it',
  },
  BLOCK_CORRUPT: {
    errno: 'EIO',
    exit: 1,
    text: 'a block is damaged, and no other copy exists',
    next: 'write the block again, or restore it from a backup; `varve scrub NAME` tells who sees it',
  },
  DEVICE_IO: {
    errno: 'EIO',
    exit: 1,
    text: 'a file or device below failed',
    next: 'look at the storage and the kernel messages',
  },
  CLOSED: {
    errno: 'ESHUTDOWN',
    exit: 1,
    text: 'the volume or server is closing',
    next: 'connect again when it is back',
  },
  INTERRUPTED: {
    errno: 'ESHUTDOWN',
    exit: 1,
    text: 'it was interrupted',
    next: 'run it again',
  },
  PERMISSION: {
    errno: 'EPERM',
    exit: 1,
    text: 'the file system refuses access',
    next: 'run as a user who may read and write there',
  },
  FILE_EXISTS: {
    errno: 'EINVAL',
    exit: 1,
    text: 'the target file exists already',
    next: 'choose another path, or give --force',
  },
  FILE_IN_USE: {
    errno: 'EIO',
    exit: 1,
    text: 'another process is writing the file',
    next: 'wait for its end, or stop it',
  },
  PART_EXISTS: {
    errno: 'EINVAL',
    exit: 1,
    text: 'an unfinished export stands beside the target file',
    next: 'go on with it by --resume, or begin anew with --force',
  },
  PART_FOREIGN: {
    errno: 'EINVAL',
    exit: 1,
    text: 'what stands beside the target file is not the beginning of this export',
    next: 'repeat the command that began it with --resume, begin anew with --force, or choose another path',
  },
  IMAGE_FORMAT_UNSAID: {
    errno: 'EINVAL',
    exit: 2,
    text: 'the file begins as an image does, and its format was not said',
    next: 'give --format qcow2 for the disk in it, or --format raw for the file byte for byte',
  },
  IMAGE_CORRUPT: {
    errno: 'EIO',
    exit: 1,
    text: 'the disk image is damaged or cut off',
    next: 'look at it with `qemu-img check`, or get another copy',
  },
  IMAGE_UNSUPPORTED: {
    errno: 'EINVAL',
    exit: 1,
    text: 'the disk image is of a kind that Varve does not read',
    next: 'convert it with `qemu-img convert -O raw`',
  },
  SNAPSHOT_IN_USE: {
    errno: 'EPERM',
    exit: 1,
    text: 'other volumes are based on this snapshot',
    next: 'make them independent with `varve flatten NAME`, or remove them, then delete it',
  },
  BASE_NONE: {
    errno: 'EINVAL',
    exit: 1,
    text: 'the volume is based on nothing',
    next: 'nothing has to be done',
  },
  BASE_DEEP: {
    errno: 'EINVAL',
    exit: 1,
    text: 'too many volumes would be based on each other',
    next: 'make one of them independent with `varve flatten NAME`',
  },
  BASE_MISSING: {
    errno: 'EIO',
    exit: 1,
    text: 'what the volume is based on is not there',
    next: 'put it back where the message says; the volume itself was not changed',
  },
  BASE_CHANGED: {
    errno: 'EIO',
    exit: 1,
    text: 'what the volume is based on is not what it was',
    next: 'put back what was there: a base must not change, as what the volume never wrote is read from it',
  },
  FILE_BAD: {
    errno: 'EINVAL',
    exit: 1,
    text: 'the file can not be used',
    next: 'check the path',
  },
  ADDRESS_BAD: {
    errno: 'EINVAL',
    exit: 2,
    text: 'the address is not understood',
    next: 'write HOST:PORT',
  },
  ADDRESS_IN_USE: {
    errno: 'EIO',
    exit: 1,
    text: 'the address is in use',
    next: 'stop the other server, or choose another address',
  },
  SERVER_GONE: {
    errno: 'EIO',
    exit: 1,
    text: 'the connection to the server ended',
    next: 'see whether the server still runs',
  },
  SERVER_NEEDED: {
    errno: 'EIO',
    exit: 1,
    text: 'this needs a running server',
    next: 'start `varve serve`',
  },
  SERVER_RUNS: {
    errno: 'EIO',
    exit: 1,
    text: 'this can not be done while a server has the directory',
    next: 'stop the server first',
  },
  SCRUB_RUNS: {
    errno: 'EINVAL',
    exit: 1,
    text: 'a scrub or check of the volume is running already',
    next: 'wait for its end, or end the command that started it',
  },
  ROLLBACK_RUNS: {
    errno: 'EIO',
    exit: 1,
    text: 'the volume is being rolled back',
    next: 'wait for the end of the rollback; moments of before can be opened meanwhile',
  },
  ROLLBACK_UNFINISHED: {
    errno: 'EIO',
    exit: 1,
    text: 'a rollback of the volume has begun and could not be ended',
    next:
      'mend what is named as the reason, then run `varve rollback NAME --to MOMENT` again, with the' +
      ' same moment or, to give up, with the one before the rollback; serving the volume tries again too',
  },
  ROLLBACK_TOO_BIG: {
    errno: 'ENOSPC',
    exit: 1,
    text: 'what differs does not fit into the free part of the log',
    next:
      'delete the snapshots that `varve info NAME` names, choose a later moment, or copy the moment' +
      ' into another volume: `varve export NAME@MOMENT FILE`, then `varve import FILE OTHER`',
  },
  CLIENTS_CONNECTED: {
    errno: 'EINVAL',
    exit: 1,
    text: 'clients have the live disk open',
    next: 'unmount and disconnect them first, or give --force, which ends their sessions',
  },
  PROTOCOL: {
    errno: 'EINVAL',
    exit: 1,
    text: 'the peer broke the protocol',
    next: 'use a client that speaks NBD',
  },
} as const satisfies Record<string, ErrorRow>;

export type ErrorCode = keyof typeof ERRORS;

export interface VarveErrorOptions extends ErrorOptions {
  /** The next step where this time there is a better one than that of the code. */
  readonly next?: string | undefined;
}

export class VarveError extends Error {
  readonly code: ErrorCode;
  /** What happened this time: names, numbers, got and expected. */
  readonly detail: string;
  /** The next step for a person: its own, or that of the same error below it, or the code's. */
  readonly next: string;

  constructor(code: ErrorCode, detail: string, options: VarveErrorOptions = {}) {
    super(`${ERRORS[code].text}: ${detail}`, options);
    this.name = 'VarveError';
    this.code = code;
    this.detail = detail;
    const { next, cause } = options;
    const below = cause instanceof VarveError && cause.code === code ? cause.next : undefined;
    this.next = next ?? below ?? ERRORS[code].next;
  }

  get errno(): Errno {
    return ERRORS[this.code].errno;
  }

  get exit(): 1 | 2 {
    return ERRORS[this.code].exit;
  }
}

export function isVarveError(error: unknown, code?: ErrorCode): error is VarveError {
  return error instanceof VarveError && (code === undefined || error.code === code);
}
