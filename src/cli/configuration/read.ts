/**
 * From an `aerostat.toml` to what commands go by: where guests are, how a daemon serves them, and the settings of the
 * policy. A file is taken whole or refused whole. Paths in it count from its directory.
 */
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { DEFAULT_PROFILE, profile } from '../../balloon/profiles.ts';
import { removableFeature } from '../../hosting/offered-features.ts';
import type { GuestOptions, LogLevel } from '../../hosting/options.ts';
import type { GuestSettings } from '../../policy/types.ts';
import { DEFAULT_SETTINGS, type SteeringSettings } from '../../steering/settings.ts';
import { parseDuration } from '../duration.ts';
import { GUEST_NAME, isKeepWord } from '../guest-options.ts';
import type { LogFormat } from '../options.ts';
import { parsePages } from '../size.ts';
import {
  ConfigurationSchema,
  type ConfigurationText,
  DEFAULT_POLL_MS,
  type FleetText,
  type GuestText,
  type ServedText,
  type SteeredText,
} from './schema.ts';
import { ConfigurationError, checkToml, type Fault, type Keys, type TomlPlace } from './toml.ts';

/** A daemon by the address of its API. */
export interface DaemonPlace {
  readonly api: string;
  readonly tokenFile?: string;
}

/** A guest by the place of its host: a monitor, or a daemon that may call it something else. */
export type NamedGuest =
  | { readonly name: string; readonly qmp: string }
  | (DaemonPlace & { readonly name: string; readonly guest?: string });

export interface Configuration {
  readonly path: string;
  /** The values as they were written. */
  readonly text: ConfigurationText;
  /** Where the file says something of `keys`. */
  placeOf(keys: Keys): TomlPlace | undefined;
  readonly daemons: readonly DaemonPlace[];
  readonly qmpDirectories: readonly string[];
  readonly qmpNames: 'file' | 'vm';
  readonly libvirt: readonly string[];
  /** Guests of which the file says at which host they are. */
  readonly guests: readonly NamedGuest[];
  /** Guests that the daemon of this file serves. */
  readonly served: readonly GuestOptions[];
  readonly keep?: string;
  readonly stateDir?: string;
  /** The daemon of this file steers its guests itself. */
  readonly steersOwn: boolean;
  readonly api: { readonly listen?: string; readonly tokenFile?: string; readonly remote: boolean };
  readonly log: { readonly level?: LogLevel | undefined; readonly format?: LogFormat | undefined };
  readonly policy: SteeringSettings;
  /** As it was written, with paths from the directory of the file. */
  readonly fleet: FleetText;
}

/** @throws ConfigurationError */
export function readConfiguration(path: string): Configuration {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    const missing = (cause as NodeJS.ErrnoException).code === 'ENOENT';
    throw new ConfigurationError(
      [`${path}: ${missing ? 'there is no such file' : (cause as Error).message}`],
      { cause },
    );
  }
  return parseConfiguration(path, text);
}

/** @throws ConfigurationError */
export function parseConfiguration(path: string, text: string): Configuration {
  const { value, placeOf } = checkToml(path, text, ConfigurationSchema, contradictions);
  const from = (relative: string) => resolve(dirname(path), relative);
  const { sources = {}, api = {}, log = {}, device = {}, guests = {} } = value;
  const daemons = (sources.daemons ?? []).map(
    (daemon): DaemonPlace =>
      placeAt(from, typeof daemon === 'string' ? { api: daemon } : { ...daemon, api: daemon.api }),
  );
  return {
    path,
    text: value,
    placeOf,
    daemons,
    qmpDirectories: (sources['qmp-dirs'] ?? []).map(from),
    qmpNames: sources['qmp-names'] ?? 'file',
    libvirt: sources.libvirt ?? [],
    guests: Object.entries(guests).flatMap(([name, guest]) => placesOf(from, name, guest)),
    served: Object.entries(guests).flatMap(([name, guest]) => servedAt(from, name, { ...device, ...guest })),
    ...(device.keep === undefined ? {} : { keep: isKeepWord(device.keep) ? device.keep : from(device.keep) }),
    ...(device['state-dir'] === undefined ? {} : { stateDir: from(device['state-dir']) }),
    steersOwn: device.policy ?? false,
    api: {
      remote: api.remote ?? false,
      ...(api.listen === undefined ? {} : { listen: addressFrom(from, api.listen) }),
      ...(api['token-file'] === undefined ? {} : { tokenFile: from(api['token-file']) }),
    },
    log,
    policy: steeringOf(value),
    fleet: fleetOf(from, value.fleet ?? {}),
  };
}

type Resolve = (relative: string) => string;

const FLEET_FILES = ['machines', 'creds', 'nkey', 'tls-ca', 'tls-cert', 'tls-key'] as const;

const fleetOf = (from: Resolve, text: FleetText): FleetText => ({
  ...text,
  ...Object.fromEntries(
    FLEET_FILES.flatMap(key => (text[key] === undefined ? [] : [[key, from(text[key])]])),
  ),
});

/** What is neither HOST:PORT nor a URL is a path. */
const addressFrom = (from: Resolve, api: string): string =>
  api.includes('://') || /^[^/]*:\d{1,5}$/.test(api) ? api : from(api);

function placeAt(
  from: Resolve,
  { api, 'token-file': tokenFile }: Pick<GuestText, 'token-file'> & { api: string },
): DaemonPlace {
  const address = addressFrom(from, api);
  return tokenFile === undefined ? { api: address } : { api: address, tokenFile: from(tokenFile) };
}

function placesOf(from: Resolve, name: string, guest: GuestText): NamedGuest[] {
  const { qmp, api, guest: remote } = guest;
  if (qmp !== undefined) return [{ name, qmp: from(qmp) }];
  if (api === undefined) return [];
  const place = placeAt(from, { ...guest, api });
  return [remote === undefined ? { name, ...place } : { name, ...place, guest: remote }];
}

function servedAt(from: Resolve, name: string, text: ServedText & Pick<GuestText, 'socket'>): GuestOptions[] {
  if (text.socket === undefined) return [];
  return [
    {
      name,
      socketPath: from(text.socket),
      targetBytes: parsePages(text.target ?? '0'),
      profile: text.profile ?? DEFAULT_PROFILE,
      discard: text.discard ?? 'auto',
      without: text.without ?? [],
      pollIntervalMs:
        text['poll-interval'] === undefined ? DEFAULT_POLL_MS : parseDuration(text['poll-interval']),
      bootGraceMs: parseDuration(text['boot-grace'] ?? '0'),
      ...(text['eviction-interval'] === undefined
        ? {}
        : { evictionMs: parseDuration(text['eviction-interval']) }),
    },
  ];
}

function steeringOf({ policy = {}, guests = {} }: ConfigurationText): SteeringSettings {
  return {
    periodMs: policy.period === undefined ? DEFAULT_SETTINGS.periodMs : parseDuration(policy.period),
    dryRun: policy['dry-run'] ?? DEFAULT_SETTINGS.dryRun,
    onSilence: policy['on-silence'] ?? DEFAULT_SETTINGS.onSilence,
    ...(policy.memory === undefined ? {} : { memoryBytes: parsePages(policy.memory) }),
    ...(policy.reserve === undefined ? {} : { reserveBytes: parsePages(policy.reserve) }),
    defaults: settingsOf(policy.defaults ?? {}),
    guests: Object.fromEntries(Object.entries(guests).map(([name, guest]) => [name, settingsOf(guest)])),
  };
}

const settingsOf = ({ min, max, shares, mode }: SteeredText): GuestSettings => ({
  ...(min === undefined ? {} : { minBytes: parsePages(min) }),
  ...(max === undefined ? {} : { maxBytes: parsePages(max) }),
  ...(shares === undefined ? {} : { shares }),
  ...(mode === undefined ? {} : { mode }),
});

/** What each value allows and all together do not. */
function contradictions({ policy, device = {}, guests = {} }: ConfigurationText): Fault[] {
  const defaults = policy?.defaults ?? {};
  const wrong: Fault[] = [...bounds(['policy', 'defaults'], defaults), ...features(['device'], device)];
  for (const [name, guest] of Object.entries(guests)) {
    const keys = ['guests', name];
    if (!GUEST_NAME.test(name)) {
      wrong.push([keys, 'no guest can be called that: letters, digits, dots and dashes, 64 at most']);
    }
    wrong.push(...bounds(keys, { ...defaults, ...guest }), ...features(keys, { ...device, ...guest }));
    wrong.push(...misplaced(keys, guest));
  }
  return wrong;
}

function bounds(keys: Keys, { min, max }: SteeredText): Fault[] {
  if (min === undefined || max === undefined || parsePages(min) <= parsePages(max)) return [];
  return [[[...keys, 'min'], `${min} is above the maximum, ${max}`]];
}

function features(keys: Keys, { profile: name = DEFAULT_PROFILE, without = [] }: ServedText): Fault[] {
  return without.flatMap((feature, at): Fault[] => {
    try {
      removableFeature(profile(name), feature);
      return [];
    } catch (error) {
      return [[[...keys, 'without', at], (error as Error).message]];
    }
  });
}

const PLACES = ['socket', 'qmp', 'api'] as const;
const WITH_SOCKET = [
  'target',
  'profile',
  'without',
  'discard',
  'poll-interval',
  'boot-grace',
  'eviction-interval',
] as const;

function misplaced(keys: Keys, guest: GuestText): Fault[] {
  const wrong: Fault[] = [];
  const places = PLACES.filter(place => guest[place] !== undefined);
  if (places.length > 1) {
    wrong.push([
      [...keys, places[1]],
      'a guest is served here (socket), behind a monitor (qmp) or of a daemon (api): one of the three',
    ]);
  }
  for (const key of ['guest', 'token-file'] as const) {
    if (guest[key] !== undefined && guest.api === undefined) wrong.push([[...keys, key], 'it goes with api']);
  }
  for (const key of WITH_SOCKET) {
    if (guest[key] !== undefined && guest.socket === undefined)
      wrong.push([[...keys, key], 'it goes with socket']);
  }
  return wrong;
}
