/**
 * The port to a volume directory's small files: names, text, a lock. The real one is in src/app,
 * the simulated one in test/sim. Devices are opened beside it, by `OpenDevice`.
 *
 * Promises of every implementation:
 *   - What has settled is durable: a power cut leaves the state before or after a call, never one
 *     in between.
 *   - What a process that was killed had not settled may be there all the same, for all to see, until
 *     a power cut takes it back: who relies on a name that another process gave asks for `syncNames`.
 *   - Errors are VarveErrors that name the path.
 */
export type PathKind = 'none' | 'file' | 'directory' | 'block-device' | 'other';

export interface FileLock {
  /** Idempotent. A process that ends, however it does, releases its locks too. */
  release(): Promise<void>;
}

export interface MetaFiles {
  /** What is at `path`, links followed. */
  kind(path: string): Promise<PathKind>;
  /** Undefined when there is no such file. */
  readText(path: string): Promise<string | undefined>;
  /**
   * Puts `text` in place of what was there; a reader finds the old or the new text, whole. Also when
   * it fails: a directory may fail to sync that has the new text, which a power cut may take back.
   */
  writeAtomically(path: string, text: string): Promise<void>;
  /** Gives a file another name in its directory; what had that name before is gone. */
  rename(path: string, name: string): Promise<void>;
  /**
   * Gives a file a second name, on the same file system.
   * @returns false, with nothing changed, where the file system gives a file one name only
   * @throws VarveError FILE_EXISTS when anything has that name
   */
  link(path: string, second: string): Promise<boolean>;
  /** Whether both are names of one file, links not followed; not where one is missing. */
  isSame(path: string, other: string): Promise<boolean>;
  /** Whether both are, or link to, one block device, by whatever names; not where one is missing. */
  isSameDevice(path: string, other: string): Promise<boolean>;
  /** Names in a directory, sorted; none when it does not exist. */
  list(path: string): Promise<readonly string[]>;
  /** Makes durable what names a directory has, whoever gave them. */
  syncNames(directory: string): Promise<void>;
  /**
   * Makes the directory and those above it. One that exists is left alone, but for its name, which is
   * durable then: nothing is ever made in a directory that is not.
   */
  createDirectory(path: string): Promise<void>;
  /** Removes a file or an empty directory; nothing there is fine. */
  remove(path: string): Promise<void>;
  /**
   * Takes a lock file, made if missing, without waiting; it is never removed.
   * @throws VarveError VOLUME_LOCKED, naming the process that holds it where known
   */
  lock(path: string): Promise<FileLock>;
}
