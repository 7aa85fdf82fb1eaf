/** A control whose guests a policy looks after: what is asked of the policy is answered here, the rest goes through. */
import type { GuestEvent } from '../control/contract.ts';
import { GuestStateError, UnknownGuestError } from '../control/errors.ts';
import type { Control, PolicyControl } from '../control/operations.ts';
import type { GuestPolicy, PolicyState, PolicyStatus } from '../control/policy.ts';
import { Listeners } from '../sys/listeners.ts';
import type { PolicyRunner } from './runner.ts';
import { changed, checkGuestSettings, type SteeringSettings, settingsShown } from './settings.ts';
import { budgetShown, decisionOf } from './shown.ts';

/** Where settings come from; absent where no file was named. */
interface SettingsSource {
  readonly path: string;
  /** @throws AerostatError when the file is refused */
  readonly read: () => SteeringSettings;
}

export interface SteeredControl extends Control {
  /** Reads the settings anew; what is wrong with them is in the status, and those before stay in force. */
  reload(): void;
  /** Where the runner's own events go. */
  tell(event: GuestEvent): void;
}

export function steeredControl(
  control: Control,
  runner: PolicyRunner,
  source?: SettingsSource,
): SteeredControl {
  const listeners = new Listeners<[event: GuestEvent]>();
  const steering = new Steering(runner, source);
  return {
    ...control,
    ...steering.operations(),
    reload: () => steering.reload(),
    tell: event => {
      listeners.emit(event);
    },
    subscribe: listener => {
      const forget = listeners.add(listener);
      const leave = control.subscribe(listener);
      return () => {
        leave();
        forget();
      };
    },
  };
}

class Steering {
  readonly #runner: PolicyRunner;
  readonly #source: SettingsSource | undefined;
  #settingsError: string | null = null;

  constructor(runner: PolicyRunner, source: SettingsSource | undefined) {
    this.#runner = runner;
    this.#source = source;
  }

  operations(): PolicyControl {
    const runner = this.#runner;
    return {
      policy: async () => this.status(),
      changePolicy: async ({ dryRun } = {}) => {
        if (dryRun !== undefined) runner.dryRun = dryRun;
        runner.hurry();
        return this.status();
      },
      reloadPolicy: async () => {
        this.#reload();
        return this.status();
      },
      reserve: async order => {
        if (runner.find(order.name)?.status.connected === true) {
          throw new GuestStateError(`${order.name} runs already; memory is reserved for guests that start`);
        }
        return runner.reserve(order);
      },
      releaseReservation: async ({ name }) => {
        runner.reservations.release(name);
        runner.save();
        runner.hurry();
        return this.status();
      },
      guestPolicy: async name => this.guest(this.#expect(name)),
      changeGuestPolicy: async (name, changes = {}) => {
        this.#expect(name);
        const after = changed(runner.set.get(name) ?? {}, changes);
        const { defaults, guests } = runner.settings;
        checkGuestSettings(name, { ...defaults, ...guests[name], ...after });
        runner.set.set(name, after);
        runner.save();
        runner.hurry();
        return this.guest(name);
      },
      resumePolicy: async name => {
        const seen = runner.find(this.#expect(name));
        if (seen !== undefined) runner.ordersOf(name).resume(seen);
        const { mode, ...rest } = runner.set.get(name) ?? {};
        if (mode === 'hold') runner.set.set(name, rest);
        runner.save();
        runner.hurry();
        return this.guest(name);
      },
      policyHistory: async name => ({ decisions: runner.history.of(this.#expect(name)) }),
    };
  }

  #expect(name: string): string {
    if (this.#runner.find(name) === undefined) throw new UnknownGuestError(name, this.#runner.names);
    return name;
  }

  reload(): void {
    try {
      this.#reload();
    } catch {
      // The status has it.
    }
  }

  #reload(): void {
    if (this.#source === undefined) {
      throw new GuestStateError(
        'the policy was started without a file of settings; there is nothing to read anew',
      );
    }
    try {
      this.#runner.settings = this.#source.read();
      this.#settingsError = null;
    } catch (error) {
      this.#settingsError = error instanceof Error ? error.message : String(error);
      throw error;
    }
    this.#runner.hurry();
  }

  get #state(): PolicyState {
    if (this.#runner.silent) return 'silent';
    return this.#runner.dryRun ? 'dry-run' : 'running';
  }

  status(): PolicyStatus {
    const runner = this.#runner;
    const { decidedAtMs, clock } = runner;
    return {
      state: this.#state,
      dryRun: runner.dryRun,
      periodMs: runner.settings.periodMs,
      decidedAgoMs: decidedAtMs === null ? null : Math.max(0, clock.nowMs() - decidedAtMs),
      decisions: runner.decisions,
      moves: runner.moves,
      onSilence: runner.settings.onSilence,
      settingsPath: this.#source?.path ?? null,
      settingsError: this.#settingsError,
      budget: decidedAtMs === null ? null : budgetShown(runner.last.host),
      reservations: runner.reservationList(),
      guests: runner.names.map(name => this.guest(name)),
    };
  }

  guest(name: string): GuestPolicy {
    const runner = this.#runner;
    const orders = runner.ordersOf(name);
    const decision = runner.decisionOf(name);
    const { defaults, guests } = runner.settings;
    const settings = { ...defaults, ...guests[name], ...runner.set.get(name) };
    const { leaseUntilMs, heldSinceMs, harms, oomKills } = orders;
    const mode = settings.mode ?? 'auto';
    const { clock, decidedAtMs } = runner;
    const wallOf = (ms: number) => Math.round(clock.wallMs() + ms - clock.nowMs());
    const actualBytes = runner.find(name)?.status.actualBytes ?? null;
    return {
      name,
      mode: heldSinceMs !== null && mode !== 'off' ? 'hold' : mode,
      settings: settingsShown(settings),
      heldSinceMs,
      leaseUntilMs: leaseUntilMs === null ? null : wallOf(leaseUntilMs),
      harms,
      oomKills,
      error: runner.sourceError(name) ?? orders.error,
      decision:
        decision === undefined || decidedAtMs === null
          ? null
          : decisionOf(decision, runner.last.host, {
              timeMs: wallOf(decidedAtMs),
              actualBytes,
              moved: decision.targetBytes >= 0 && decision.keepBytes !== decision.currentBytes,
            }),
    };
  }
}
