/** A control group of its own that limits memory, of the second version or of the first. */
import { existsSync, mkdtempSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

const ROOT = '/sys/fs/cgroup';

interface Kind {
  readonly parent: string;
  readonly limit: string;
  readonly usage: string;
}

const KINDS: readonly Kind[] = [
  { parent: ROOT, limit: 'memory.max', usage: 'memory.current' },
  {
    parent: join(ROOT, 'memory'),
    limit: 'memory.limit_in_bytes',
    usage: 'memory.usage_in_bytes',
  },
];

export class MemoryGroup implements AsyncDisposable {
  readonly #path: string;
  readonly #kind: Kind;

  private constructor(path: string, kind: Kind) {
    this.#path = path;
    this.#kind = kind;
  }

  /** Undefined where this machine gives none. */
  static make(): MemoryGroup | undefined {
    for (const kind of KINDS) {
      try {
        const path = mkdtempSync(join(kind.parent, 'varve-test-'));
        if (existsSync(join(path, kind.limit))) return new MemoryGroup(path, kind);
        rmdirSync(path);
      } catch {
        // Not mounted, or not ours to change.
      }
    }
    return undefined;
  }

  /** Words before a command line, which starts it in this group. */
  get launcher(): readonly string[] {
    return ['sh', '-c', 'echo $$ > "$0" && exec "$@"', join(this.#path, 'cgroup.procs')];
  }

  get usedBytes(): number {
    return Number(readFileSync(join(this.#path, this.#kind.usage), 'utf8'));
  }

  /** @returns false when the kernel finds no way to that limit */
  limit(bytes: number): boolean {
    try {
      writeFileSync(join(this.#path, this.#kind.limit), String(Math.floor(bytes)));
      return true;
    } catch {
      return false;
    }
  }

  /** When all its processes are gone. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (let tries = 0; tries < 50 && existsSync(this.#path); tries++) {
      try {
        rmdirSync(this.#path);
      } catch {
        await delay(50);
      }
    }
  }
}
