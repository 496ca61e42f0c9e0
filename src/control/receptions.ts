/**
 * The streams that a server's clients bring over the control socket, piece by piece: at most one for
 * each volume, since a new one takes over.
 */
import { VarveError } from '../base/errors.ts';
import type { ReceiveReport } from '../volume/report.ts';
import { Reception } from './receive.ts';
import type { VolumePool } from './volume-pool.ts';

interface Known {
  readonly id: number;
  readonly reception: Reception;
}

export class Receptions {
  readonly #pool: VolumePool;
  readonly #known = new Map<string, Known>();
  #id = 0;

  constructor(pool: VolumePool) {
    this.#pool = pool;
  }

  /** @returns a number by which to go on */
  async open(name: string): Promise<number> {
    await this.#known.get(name)?.reception.close();
    const id = ++this.#id;
    await this.#pool.use(name, 'write', async (volume) => {
      this.#known.set(name, { id, reception: new Reception(volume, () => undefined) });
    });
    return id;
  }

  async push(name: string, id: number, bytes: Uint8Array): Promise<void> {
    await this.#find(name, id).push(bytes);
  }

  async finish(name: string, id: number): Promise<ReceiveReport> {
    const reception = this.#find(name, id);
    this.#known.delete(name);
    try {
      return reception.finish();
    } finally {
      await reception.close();
    }
  }

  #find(name: string, id: number): Reception {
    const known = this.#known.get(name);
    if (known?.id === id) return known.reception;
    throw new VarveError('CLOSED', `another receive into "${name}" has taken over`);
  }
}
