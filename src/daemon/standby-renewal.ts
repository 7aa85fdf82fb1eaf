/**
 * A daemon that stands by becomes the program that is installed in its place: else the one that served would be upgraded, and
 * the next one be of the version before. It looks at its files, has a new program say that it runs and which states of guests
 * it reads, and is that program then, as the same process. Whatever speaks against it leaves this one standing by.
 */
import { execFile } from 'node:child_process';
import { statSync } from 'node:fs';
import { promisify } from 'node:util';
import type { LogRecord } from '../hosting/options.ts';
import { GUEST_VERSION } from '../keeping/guest-file.ts';
import { becomeProgram } from '../sys/own-program.ts';
import type { Program } from './successor.ts';

const LOOK_EVERY_MS = 2000;
/** Far above what a start takes. */
const ANSWER_MS_MAX = 20_000;

/** States of kept guests that this program writes; it reads those of before. */
export const STATE_VERSION = GUEST_VERSION;

interface RenewalWorld {
  readonly program: Program;
  /** Besides its script: a program is another one when one of them is another file. */
  readonly files: readonly string[];
  readonly log: (record: LogRecord) => void;
  /** The process is to end. */
  readonly interrupt: AbortSignal;
}

export class StandbyRenewal {
  readonly #world: RenewalWorld;
  readonly #files: readonly string[];
  /** The program that is not to be taken again: this one, or one that was refused. */
  #known: string;
  /** As it was found at the last look: one that is being installed changes from look to look. */
  #seen: string;
  #timer: NodeJS.Timeout | undefined;
  #asking = false;
  #over = false;

  constructor(world: RenewalWorld) {
    this.#world = world;
    this.#files = [...world.program.start.slice(-1), ...world.files];
    this.#known = identityOf(this.#files);
    this.#seen = this.#known;
  }

  begin(): void {
    this.#timer = setInterval(() => this.#look(), LOOK_EVERY_MS);
    this.#timer.unref();
  }

  /** Its turn has come: it is what it is. */
  end(): void {
    this.#over = true;
    clearInterval(this.#timer);
  }

  /** Becomes what is installed, be it the same. */
  renew(): void {
    void this.#renew(identityOf(this.#files));
  }

  #look(): void {
    const now = identityOf(this.#files);
    const settled = now === this.#seen;
    this.#seen = now;
    if (settled && now !== this.#known) void this.#renew(now);
  }

  async #renew(identity: string): Promise<void> {
    if (this.#asking || this.#over) return;
    this.#asking = true;
    const { program, log, interrupt } = this.#world;
    try {
      await checkStates(program);
      // Its turn may have come, or more have been installed.
      if (this.#over || interrupt.aborted || identity !== identityOf(this.#files)) return;
      log({ level: 'info', message: 'another program is installed, and stands by in place of this one' });
      becomeProgram(program.file, program.words);
    } catch (error) {
      this.#known = identity;
      const message = error instanceof Error ? error.message : String(error);
      log({
        level: 'warn',
        message: `what is installed cannot stand by, and this program still does: ${message}`,
      });
    } finally {
      this.#asking = false;
    }
  }
}

/** What says that files are others than before: each is replaced, or written. */
const identityOf = (files: readonly string[]): string =>
  files
    .map(file => {
      const status = statSync(file, { bigint: true, throwIfNoEntry: false });
      return status === undefined ? 'none' : `${status.dev} ${status.ino} ${status.size} ${status.mtimeNs}`;
    })
    .join();

/** @throws Error when what is installed does not run, or could not go on with the guests of a daemon of this version */
async function checkStates({ file, start }: Program): Promise<void> {
  const words = [...start, 'device', '--print-capabilities'];
  const { stdout } = await promisify(execFile)(file, words, { timeout: ANSWER_MS_MAX });
  const { stateVersion } = JSON.parse(stdout) as { readonly stateVersion?: number };
  if (stateVersion !== undefined && stateVersion >= STATE_VERSION) return;
  throw new Error(
    `it reads kept guests up to state version ${stateVersion ?? 'unknown'}, and this one writes version ${STATE_VERSION}`,
  );
}
