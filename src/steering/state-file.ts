/**
 * What a policy remembers over a restart, in one file that is replaced whole: what it learned and promised, which guests
 * persons hold, what was set over the API, and reservations. A file that cannot be understood is set aside, not trusted.
 */
import { mkdirSync, readFileSync, renameSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { POLICY_MODES } from '../control/policy.ts';
import { UNSEEN } from '../policy/records.ts';
import type { GuestRecord, PolicyMemory } from '../policy/types.ts';
import { ReplacedFile } from '../sys/replaced-file.ts';

const guestMemory = z.looseObject({ name: z.string() });
const Settings = z.strictObject({
  minBytes: z.number().optional(),
  maxBytes: z.number().optional(),
  shares: z.number().optional(),
  mode: z.enum(POLICY_MODES).optional(),
});

const SavedStateSchema = z.strictObject({
  version: z.literal(1),
  memory: z.looseObject({
    version: z.literal(1),
    atMs: z.number(),
    othersBytes: z.number(),
    guests: z.array(guestMemory),
  }),
  /** Guests whose target the policy knew; wall clock since when a person holds them, or null. */
  guests: z.record(z.string(), z.number().nullable()),
  /** What was set over the API. */
  settings: z.record(z.string(), Settings),
  dryRun: z.boolean().nullable(),
  reservations: z.array(z.strictObject({ name: z.string(), bytes: z.number(), endsAtMs: z.number() })),
});

export type SavedPolicy = Omit<z.output<typeof SavedStateSchema>, 'memory'> & {
  readonly memory: PolicyMemory;
};

/** XDG's place for what programs remember, or what systemd gives a unit. */
export function stateDirectory(env: Readonly<Record<string, string | undefined>>): string {
  if (env.STATE_DIRECTORY) return env.STATE_DIRECTORY;
  return join(env.XDG_STATE_HOME ?? join(env.HOME ?? homedir(), '.local', 'state'), 'aerostat');
}

/** A record of the present shape, with what the saved one has of it. */
function whole(saved: Readonly<Record<string, unknown>>): GuestRecord {
  const record: Record<string, unknown> = { ...UNSEEN };
  for (const key of Object.keys(record)) {
    if (typeof saved[key] === typeof record[key]) record[key] = saved[key];
  }
  return record as unknown as GuestRecord;
}

export class StateFile {
  readonly #file: ReplacedFile;

  constructor(directory: string) {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    this.#file = new ReplacedFile(join(directory, 'policy-state.json'), { durable: true });
  }

  /** Why it could not be written the last time; null where it could. */
  get error(): string | null {
    return this.#file.error;
  }

  /** Undefined where there is none, or none that makes sense: that one is kept beside it, for those who look into it. */
  read(): SavedPolicy | undefined {
    const { path } = this.#file;
    let text: string;
    try {
      text = readFileSync(path, 'utf8');
    } catch {
      return undefined;
    }
    try {
      const { memory, ...state } = SavedStateSchema.parse(JSON.parse(text));
      return { ...state, memory: { ...memory, guests: memory.guests.map(whole) } };
    } catch {
      renameSync(path, `${path}.bad`);
      return undefined;
    }
  }

  write(state: () => SavedPolicy): void {
    this.#file.write(() => JSON.stringify(state()));
  }

  /** Resolves when nothing is being written any more. */
  settled(): Promise<void> {
    return this.#file.settled();
  }
}
