/**
 * The port to a byte stream: a Unix or TCP connection, or a pair in memory. The node:net adapter
 * is `node-socket.ts`; everything else of the server knows this only.
 */
export interface SocketEvents {
  /** Bytes that came, in order; borrowed during the call, never empty. */
  data(bytes: Uint8Array): void;
  /**
   * Where the next bytes may be put at once, when more than a piece of them is wanted there; a
   * hint. `data` is then called with the part that was filled.
   */
  target(): Uint8Array | undefined;
  /** The peer sends nothing more; it may still read. */
  end(): void;
  /** The stream is gone in both directions; the last event, and it comes once. */
  close(): void;
}

export interface Socket {
  /** For the trace: an address, a path, a number. */
  readonly name: string;
  /** Begins to deliver events; called once. */
  start(events: SocketEvents): void;
  /**
   * Sends `pieces` in order; they are borrowed until `sent` is called, when the last byte has gone
   * to the system. One call at a time: the next one comes after `sent`. When the stream fails,
   * `close` comes instead.
   */
  write(pieces: readonly Uint8Array[], sent: () => void): void;
  /** No more `data` for now, save what is on its way already. */
  pause(): void;
  resume(): void;
  /** Ends our direction after what was written. */
  end(): void;
  /** Ends both directions now; `close` follows. Idempotent. */
  destroy(): void;
  /** Calls back soon, after whatever else has come in by now. */
  defer(call: () => void): void;
}
