/** Errors of the operating system, as errors of the house: the code decides, the text tells all. */
import { VarveError, type ErrorCode } from '../base/errors.ts';

const CODES: Readonly<Record<string, ErrorCode>> = {
  ENOSPC: 'DISK_FULL',
  EDQUOT: 'DISK_FULL',
  EACCES: 'PERMISSION',
  EPERM: 'PERMISSION',
  EROFS: 'PERMISSION',
  EEXIST: 'FILE_EXISTS',
  ENOENT: 'FILE_BAD',
  ENOTDIR: 'FILE_BAD',
  EISDIR: 'FILE_BAD',
  ELOOP: 'FILE_BAD',
  ENAMETOOLONG: 'FILE_BAD',
  ENXIO: 'FILE_BAD',
  EFBIG: 'DISK_FULL',
};

const TOO_LARGE =
  'the file may not become so large there: use another file system, or raise the limit (`ulimit -f`)';

/** `ENOSPC` and the like; undefined for an error that is none of the system's. */
export function systemCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/**
 * @param doing - what failed, where: a path, an operation, an offset
 * @returns the error to throw; a VarveError is passed on as it is
 */
export function fromSystemError(error: unknown, doing: string): VarveError {
  if (error instanceof VarveError) return error;
  const code = systemCode(error);
  const why = code ?? (error instanceof Error ? error.message : String(error));
  const options = { cause: error, next: code === 'EFBIG' ? TOO_LARGE : undefined };
  return new VarveError(CODES[code ?? ''] ?? 'DEVICE_IO', `${doing}: ${why}`, options);
}
