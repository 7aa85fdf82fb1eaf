/**
 * A host's own key in its fleet: its report, written every period with the revision that it has. A key that another agent
 * writes again and again is another host of this name, and this agent gives way. One that a stranger wrote is written over.
 */
import type { Bucket, Entry } from './bus.ts';
import { HostNameTakenError, RevisionError } from './errors.ts';
import { readMessage } from './messages.ts';

/** Another agent's report stood still for so many periods: it is none that lives. */
const DEAD_PERIODS = 2.5;
/** So many reports of another agent are no stranger's joke and no late message of a former agent. */
const FOREIGN_REPORTS = 3;
const REVISIONS_KEPT = 128;

interface OwnReportOptions {
  readonly bucket: Bucket;
  readonly host: string;
  readonly agent: string;
  readonly periodMs: number;
  readonly now: () => number;
}

export class OwnReport {
  readonly #options: OwnReportOptions;
  /** When each of the newest reports was written, by its revision. */
  readonly #written = new Map<number, number>();
  #revision: number | null = null;
  #foreign: { readonly revision: number; readonly sinceMs: number; readonly reports: number } | undefined;
  /** When the newest was stored; null while none was. */
  storedMs: number | null = null;

  constructor(options: OwnReportOptions) {
    this.#options = options;
  }

  /** How long ago a report of this revision was written; null for one that is not ours, or of long ago. */
  ageOf(revision: number): number | null {
    const atMs = this.#written.get(revision);
    return atMs === undefined ? null : this.#options.now() - atMs;
  }

  /**
   * False when the key is another agent's for now.
   * @throws HostNameTakenError, FleetUnreachableError
   */
  async write(text: string): Promise<boolean> {
    const { bucket, host, now } = this.#options;
    const atMs = now();
    try {
      this.#stored(
        this.#revision === null
          ? await bucket.create(host, text)
          : await bucket.update(host, text, this.#revision),
        atMs,
      );
      return true;
    } catch (error) {
      if (!(error instanceof RevisionError)) throw error;
    }
    const entry = await bucket.get(host);
    // It has lived its time, as after a long stop of this agent.
    this.#revision = entry?.revision ?? null;
    if (entry !== null && !this.#mayReplace(entry)) return false;
    return this.write(text);
  }

  async leave(): Promise<void> {
    if (this.#revision !== null) await this.#options.bucket.delete(this.#options.host);
    this.#revision = null;
  }

  #stored(revision: number, atMs: number): void {
    this.#revision = revision;
    this.#foreign = undefined;
    this.storedMs = atMs;
    this.#written.set(revision, atMs);
    if (this.#written.size > REVISIONS_KEPT) this.#written.delete([...this.#written.keys()][0]);
  }

  #mayReplace({ revision, bytes }: Entry): boolean {
    const { agent, host, periodMs, now } = this.#options;
    const read = readMessage('report', bytes);
    if ('refusal' in read || read.value.agent === agent) return true;
    const before = this.#foreign;
    if (before?.revision === revision) return now() - before.sinceMs > DEAD_PERIODS * periodMs;
    const reports = (before?.reports ?? 0) + 1;
    if (reports > FOREIGN_REPORTS) throw new HostNameTakenError(host);
    this.#foreign = { revision, sinceMs: now(), reports };
    return false;
  }
}
