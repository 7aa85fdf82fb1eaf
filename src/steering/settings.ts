/** What a running policy is set to, wherever that was said: a file, options of a command, or the API. */
import { GuestStateError } from '../control/errors.ts';
import type { GuestPolicyChanges, GuestPolicySettings, SilenceRule } from '../control/policy.ts';
import type { GuestSettings, Settings } from '../policy/types.ts';
import { defined } from '../sys/defined.ts';
import { formatSize } from '../sys/size.ts';

export const PERIOD_MS = 2000;
/** Below it, guests would be asked for statistics all the time; above it, a burst waits for too long. */
export const PERIOD_MS_MIN = 200;
export const PERIOD_MS_MAX = 60_000;

export interface SteeringSettings {
  readonly periodMs: number;
  readonly dryRun: boolean;
  readonly onSilence: SilenceRule;
  /** What the policy divides, if not all of the host's memory. */
  readonly memoryBytes?: number;
  /** Absent for the default. */
  readonly reserveBytes?: number;
  /** Of guests about which nothing is said. */
  readonly defaults: GuestSettings;
  readonly guests: Readonly<Record<string, GuestSettings>>;
}

export const DEFAULT_SETTINGS: SteeringSettings = {
  periodMs: PERIOD_MS,
  dryRun: false,
  onSilence: 'keep',
  defaults: {},
  guests: {},
};

/** How often guests are asked for statistics. */
export const statisticsPeriodMs = ({ periodMs }: SteeringSettings): number => Math.max(100, periodMs / 2);

/** Settings in force: those of the file, and over them what was set over the API, and whom a person holds. */
export function settingsInForce(
  file: SteeringSettings,
  set: Readonly<Record<string, GuestSettings>>,
  held: Iterable<string>,
  names: readonly string[],
): Settings {
  const guests: Record<string, GuestSettings> = {};
  for (const name of names) guests[name] = { ...file.defaults, ...file.guests[name], ...set[name] };
  for (const name of held) {
    const guest = guests[name];
    if (guest !== undefined && guest.mode !== 'off') guests[name] = { ...guest, mode: 'hold' };
  }
  return {
    guests,
    statisticsPeriodMs: statisticsPeriodMs(file),
    ...defined({ reserveBytes: file.reserveBytes }),
  };
}

export const settingsShown = ({ minBytes, maxBytes, shares, mode }: GuestSettings): GuestPolicySettings => ({
  minBytes: minBytes ?? null,
  maxBytes: maxBytes ?? null,
  shares: shares ?? null,
  mode: mode ?? null,
});

/** What is set over the API after `changes`, where null takes a setting away again. */
export function changed(before: GuestSettings, changes: GuestPolicyChanges): GuestSettings {
  const after = { ...before, ...changes };
  return Object.fromEntries(Object.entries(after).filter(([, value]) => value !== null)) as GuestSettings;
}

/** @throws GuestStateError when a guest's minimum is above its maximum */
export function checkGuestSettings(name: string, { minBytes, maxBytes }: GuestSettings): void {
  if (minBytes === undefined || maxBytes === undefined || minBytes <= maxBytes) return;
  throw new GuestStateError(
    `the minimum of ${name}, ${formatSize(minBytes)}, is above its maximum, ${formatSize(maxBytes)}; nothing was changed`,
  );
}
