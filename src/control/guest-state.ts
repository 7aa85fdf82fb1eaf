/**
 * Whether a guest can answer at all, in one word for programs and in sentences for people. Pure, and needs nothing of
 * Node: the page in the browser says the same.
 */
import type { GuestState, GuestStatus } from './contract.ts';

/** In the width of a table. */
const WORDS: Readonly<Record<GuestState, string>> = {
  waiting: 'waiting',
  'no-driver': 'no driver',
  running: 'running',
  paused: 'paused',
  silent: 'silent',
};

/** What keeps a guest from answering; undefined where nothing does. */
const OBSTACLES: Readonly<Record<GuestState, string | undefined>> = {
  waiting: 'no guest is connected',
  'no-driver': 'its balloon driver has not started yet',
  running: undefined,
  paused: 'it is paused: its hypervisor has stopped it, or its rings',
  silent: 'it does not answer: its front-end is stopped, or hangs',
};

type Stated = Pick<GuestStatus, 'state' | 'connected'>;

/** Its hypervisor is reached, and does not tell whether the guest's driver is at work. */
const STATE_UNKNOWN = 'connected';

/** One or two words for the guest's state; a hypervisor that tells no state tells whether it can be reached. */
export function stateWord({ state, connected }: Stated): string {
  if (!connected) return WORDS.waiting;
  return state === null ? STATE_UNKNOWN : WORDS[state];
}

/** Why the guest cannot answer now, as the end of a sentence; undefined where it can, or that is not known. */
export const obstacleOf = (state: GuestState | null): string | undefined =>
  state === null ? undefined : OBSTACLES[state];

/** Whether the guest stands still, so that waiting for it means waiting until its hypervisor resumes it. */
export const standsStill = (state: GuestState | null): boolean => state === 'paused' || state === 'silent';
