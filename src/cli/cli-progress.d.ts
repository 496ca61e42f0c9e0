/** What is used of cli-progress, which brings no types. */
declare module 'cli-progress' {
  export interface BarOptions {
    readonly format?: string;
    readonly stream?: NodeJS.WritableStream;
    readonly hideCursor?: boolean;
    readonly clearOnComplete?: boolean;
    readonly fps?: number;
  }
  export class SingleBar {
    constructor(options: BarOptions);
    start(total: number, done: number, payload?: object): void;
    setTotal(total: number): void;
    update(done: number, payload?: object): void;
    stop(): void;
  }
}
