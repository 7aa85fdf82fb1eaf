/**
 * A file that names guests wherever they are:
 *
 *     {"guests": [{"name": "web", "qmp": "/run/qemu/web.qmp"},
 *                 {"name": "db", "api": "/run/user/1000/aerostat/api.sock", "guest": "vm2"}]}
 *
 * A guest of QEMU's has `qmp`, the path of its monitor; a guest of an Aerostat daemon `api`, with `guest` if the daemon
 * calls it something else and `tokenFile` if the API is reached over TCP. Paths count from the file's directory.
 */
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { z } from 'zod';
import { AerostatError } from '../sys/error.ts';
import { GUEST_NAME } from './guest-options.ts';

export class GuestsFileError extends AerostatError {
  constructor(path: string, why: string, options?: ErrorOptions) {
    super('AEROSTAT_CONFIG', `${path} does not name guests: ${why}`, options);
  }
}

const name = z.string().regex(GUEST_NAME, 'letters, digits, dots and dashes, 64 at most');
const QemuGuest = z.strictObject({ name, qmp: z.string().min(1) });
const DaemonGuest = z.strictObject({
  name,
  api: z.string().min(1),
  guest: z.string().optional(),
  tokenFile: z.string().optional(),
});
const GuestsFile = z.strictObject({ guests: z.array(z.looseObject({})).min(1, 'there is none in it') });

export type NamedGuest = z.output<typeof QemuGuest> | z.output<typeof DaemonGuest>;

/** @throws GuestsFileError */
export function readGuestsFile(path: string): readonly NamedGuest[] {
  const guests = checked(path, GuestsFile, readJson(path)).guests.map((guest, at) =>
    checked<NamedGuest>(path, 'qmp' in guest ? QemuGuest : DaemonGuest, guest, `guests[${at}]`),
  );
  for (const [at, guest] of guests.entries()) {
    if (guests.findIndex(other => other.name === guest.name) !== at) {
      throw new GuestsFileError(path, `two guests are called ${guest.name}`);
    }
  }
  const from = (relative: string) => resolve(dirname(path), relative);
  return guests.map(guest => {
    if ('qmp' in guest) return { ...guest, qmp: from(guest.qmp) };
    // What has no slash is HOST:PORT.
    const api = guest.api.includes('/') && !guest.api.includes('://') ? from(guest.api) : guest.api;
    return guest.tokenFile === undefined
      ? { ...guest, api }
      : { ...guest, api, tokenFile: from(guest.tokenFile) };
  });
}

/** The keys that a guest may have, for messages about unknown keys. */
const SHAPES = 'a guest is {"name", "qmp"} or {"name", "api"}, the latter also with "guest" and "tokenFile"';

/** `place` is where `value` is in the file, as people write it: guests[0]. @throws GuestsFileError */
function checked<Value>(path: string, schema: z.ZodType<Value>, value: unknown, place = ''): Value {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const reasons = parsed.error.issues.map(({ path: keys, message }) => {
    const at = keys.map(key => (typeof key === 'number' ? `[${key}]` : `.${String(key)}`)).join('');
    const where = `${place}${at}`.replace(/^\./, '');
    return where === '' ? message : `${where}: ${message}`;
  });
  const hint = place === '' ? '' : ` (${SHAPES})`;
  throw new GuestsFileError(path, `${reasons.join('; ')}${hint}`);
}

function readJson(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (cause) {
    const why =
      (cause as NodeJS.ErrnoException).code === 'ENOENT' ? 'there is no such file' : (cause as Error).message;
    throw new GuestsFileError(path, why, { cause });
  }
}
