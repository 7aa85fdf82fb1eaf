/** The states of a machine, what it is and its parts, as a migration carries them. */
import type { SavedState } from '../migration/machine.ts';
import { decodeConfig, encodeConfig, type VmConfig } from './config.ts';
import { VmStateError } from './errors.ts';

const STATES = ['machine', 'guest', 'driver', 'device'] as const;

interface MachineStates {
  readonly config: VmConfig;
  readonly guest: Uint8Array;
  readonly driver: Uint8Array;
  readonly device: Uint8Array;
}

export const savedStates = (
  config: VmConfig,
  parts: Partial<Omit<MachineStates, 'config'>>,
): readonly SavedState[] => [
  { name: 'machine', bytes: encodeConfig(config) },
  ...Object.entries(parts).map(([name, bytes]) => ({ name, bytes })),
];

/**
 * All of them. `known` is what the machine is known to be by what was sent ahead of it.
 * @throws VmStateError when one is missing, or it is another machine
 */
export function statesOf(states: readonly SavedState[], known: VmConfig | undefined): MachineStates {
  const [machine, guest, driver, device] = STATES.map(name => stateNamed(states, name));
  if (states.length !== STATES.length) {
    throw new VmStateError(`${states.length} states; ours have ${STATES.length}`);
  }
  return { config: configIn(machine, known), guest, driver, device };
}

/** Those that are sent ahead of a machine. @throws VmStateError as {@link statesOf} */
export const statesAhead = (
  states: readonly SavedState[],
  known: VmConfig | undefined,
): Pick<MachineStates, 'config' | 'guest'> => ({
  config: configIn(stateNamed(states, 'machine'), known),
  guest: stateNamed(states, 'guest'),
});

/** What can go to another thread of a state without being copied: its memory, where it has one of its own. */
export function memoryOf(state: Uint8Array | undefined): readonly ArrayBuffer[] {
  const buffer = state?.buffer;
  return buffer instanceof ArrayBuffer && buffer.byteLength === state?.byteLength ? [buffer] : [];
}

function stateNamed(states: readonly SavedState[], name: (typeof STATES)[number]): Uint8Array {
  const found = states.find(state => state.name === name);
  if (found === undefined) throw new VmStateError(`its state ${name} did not come`);
  return found.bytes;
}

function configIn(machine: Uint8Array, known: VmConfig | undefined): VmConfig {
  const config = decodeConfig(machine);
  if (known === undefined || Buffer.compare(encodeConfig(config), encodeConfig(known)) === 0) return config;
  throw new VmStateError('it is another machine than the one that was sent ahead');
}
