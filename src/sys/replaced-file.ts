/** A file that is replaced whole: one replacement at a time, and of those that come meanwhile the last one follows. */
import { open, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

export class ReplacedFile {
  readonly path: string;
  readonly #isDurable: boolean;
  #writing: Promise<void> | undefined;
  #next: (() => string) | undefined;
  #closed = false;
  /** Why it could not be written the last time; null where it could. */
  error: string | null = null;

  /** `durable`: it survives a loss of power. */
  constructor(path: string, { durable }: { readonly durable: boolean }) {
    this.path = path;
    this.#isDurable = durable;
  }

  /** `text` is asked for when it is written. */
  write(text: () => string): void {
    if (this.#closed) return;
    if (this.#writing === undefined) this.#writing = this.#writeAll(text);
    else this.#next = text;
  }

  /** Resolves when nothing is being written any more. */
  async settled(): Promise<void> {
    await this.#writing;
  }

  /** Nothing is written any more. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#next = undefined;
    await this.#writing;
  }

  async #writeAll(first: () => string): Promise<void> {
    try {
      for (let text: (() => string) | undefined = first; text !== undefined; text = this.#next) {
        this.#next = undefined;
        await replaceFile(this.path, text(), { durable: this.#isDurable });
      }
      this.error = null;
    } catch (error) {
      this.error = `the state cannot be saved: ${(error as Error).message}`;
    } finally {
      this.#writing = undefined;
    }
  }
}

/** Until it is done the file is the former one, at whichever moment this process ends; durable, also when the machine does. */
export async function replaceFile(
  path: string,
  text: string,
  { durable }: { readonly durable: boolean },
): Promise<void> {
  const next = join(dirname(path), `.${basename(path)}.${process.pid}`);
  try {
    const file = await open(next, 'w', 0o600);
    try {
      await file.writeFile(text);
      if (durable) await file.sync();
    } finally {
      await file.close();
    }
    await rename(next, path);
  } catch (error) {
    await rm(next, { force: true });
    throw error;
  }
  if (durable) await syncDirectory(dirname(path));
}

/** The names in it are on disk, too. */
async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path);
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
