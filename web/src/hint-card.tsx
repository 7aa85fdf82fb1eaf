/** The free page hint session: its state, and the actions that are possible now. */
import { useState } from 'preact/hooks';
import { hintWords } from '../../src/control/judgement.ts';
import { api, type HintAction, type HintStatus } from './api.ts';
import { countText, duration, size } from './format.ts';
import { type GuestView, isMigrating, live } from './live.ts';

const WORDS: Record<HintStatus['state'], string> = {
  unsupported: 'The guest’s driver did not take free page hints.',
  idle: 'No session yet.',
  requested: 'Asked; the guest has not answered yet.',
  running: 'The guest is naming pages that it does not use.',
  stopped: 'The guest has named what it does not use.',
  done: 'Over; the guest may use the pages again.',
};

/** What the guest does without, and until when. */
function holdWords({ heldBytes, endsInMs }: HintStatus): string {
  if (heldBytes === 0) return '';
  const end = endsInMs === null ? '' : `; the time limit ends the session in ${duration(endsInMs)}`;
  return ` It keeps ${size(heldBytes)} out of use until Done${end}.`;
}

const ACTIONS: readonly {
  readonly action: HintAction;
  readonly label: string;
  readonly title: string;
  readonly when: readonly HintStatus['state'][];
}[] = [
  {
    action: 'start',
    label: 'Start',
    title: 'Ask the guest which pages it does not use',
    when: ['idle', 'stopped', 'done'],
  },
  { action: 'stop', label: 'Stop', title: 'End the session early', when: ['requested', 'running'] },
  {
    action: 'done',
    label: 'Done',
    title: 'Let the guest use the named pages again',
    when: ['requested', 'running', 'stopped'],
  },
];

export function HintCard({ guest }: { guest: GuestView }) {
  const { status } = guest;
  const migrating = isMigrating(guest);
  const [refused, setRefused] = useState('');
  const { hint } = status;
  if (hint === null) return null;
  const act = async (action: HintAction) => {
    setRefused('');
    try {
      await api.hint(status.name, action);
    } catch (error) {
      setRefused((error as Error).message);
    }
    live.refresh();
  };
  return (
    <section class="card hint" aria-label="Free page hints">
      <h2>Free page hints</h2>
      <p class="note">
        {status.connected ? WORDS[hint.state] : 'No guest is connected.'}
        {status.connected && holdWords(hint)}
        {migrating && ' The migration has the sessions.'}
      </p>
      {hint.commandId !== null && hint.state !== 'unsupported' && (
        <p class="now">
          {hintWords(hint, size)}: <b>{size(hint.hintedBytes)}</b> in {countText(hint.ranges)} ranges
        </p>
      )}
      <div class="buttons">
        {ACTIONS.map(({ action, label, title, when }) => (
          <button
            key={action}
            type="button"
            title={title}
            disabled={migrating || !when.includes(hint.state)}
            onClick={() => void act(action)}
          >
            {label}
          </button>
        ))}
      </div>
      <p class="refused" role="alert">
        {refused}
      </p>
    </section>
  );
}
