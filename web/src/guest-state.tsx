/** What of a guest's state needs attention, in a few words, the most serious first. */
import { obstacleOf, standsStill, stateWord } from '../../src/control/guest-state.ts';
import {
  availableShare,
  heldForHints,
  incompleteWords,
  isMoving,
  isMuchIncomplete,
  isStuck,
  NEED_SHARE,
  stuckWords,
} from '../../src/control/judgement.ts';
import { duration, size } from './format.ts';
import { type GuestView, isMigrating } from './live.ts';

interface Mark {
  readonly kind: 'bad' | 'noted' | 'calm' | 'quiet';
  readonly text: string;
  readonly title: string;
}

function marksOf(guest: GuestView): readonly Mark[] {
  const { status, sample, use, migration } = guest;
  const marks: Mark[] = [];
  if (!status.connected) {
    return [{ kind: 'quiet', text: 'waiting', title: 'No front-end is connected to its socket' }];
  }
  const obstacle = obstacleOf(status.state);
  if (obstacle !== undefined) {
    const kind = status.state === 'silent' ? 'bad' : 'noted';
    marks.push({
      kind: status.state === 'no-driver' ? 'quiet' : kind,
      text: stateWord(status),
      title: obstacle,
    });
    if (standsStill(status.state)) return marks;
  }
  if (status.state === null) {
    const title = 'Its hypervisor is reached, and does not tell whether its balloon driver is at work';
    marks.push({ kind: 'quiet', text: stateWord(status), title });
  }
  const available = availableShare(status, sample);
  const held = heldForHints(status);
  if (available !== null && available.share < NEED_SHARE) {
    const why = held > 0 ? `, for its hint session holds ${size(held)}` : '';
    marks.push({
      kind: 'bad',
      text: 'in need',
      title: `The guest has next to no memory left for programs${why}`,
    });
  }
  if (held > 0) {
    marks.push({
      kind: 'noted',
      text: 'hints hold memory',
      title: `It keeps ${size(held)} out of use until its hint session is done`,
    });
  }
  if (isStuck(status)) {
    marks.push({ kind: 'noted', text: 'stuck', title: stuckWords(status, size, duration) });
  }
  if (isMuchIncomplete(status) && !isMoving(status)) {
    const waiting = incompleteWords(status, size);
    const title = `Of its balloon ${waiting}: the guest has not given the rest of them, and the host keeps them`;
    marks.push({ kind: 'noted', text: 'parts of huge pages', title });
  }
  if (isMoving(status)) {
    marks.push({ kind: 'calm', text: 'moving', title: 'The balloon is on its way to its target' });
  }
  if (isMigrating(guest)) {
    const to = migration?.migration?.to ?? '';
    marks.push({ kind: 'calm', text: 'migrating', title: `It is on its way to ${to}` });
  }
  if (use === undefined) {
    marks.push({ kind: 'quiet', text: 'starting', title: 'It is connected and has shown no memory yet' });
  }
  if (status.lastError !== null) {
    marks.push({ kind: 'noted', text: 'error', title: status.lastError });
  }
  return marks;
}

export function Marks({ guest }: { guest: GuestView }) {
  return (
    <>
      {marksOf(guest).map(({ kind, text, title }) => (
        <span key={text} class={`mark ${kind}`} title={title}>
          {text}
        </span>
      ))}
    </>
  );
}
