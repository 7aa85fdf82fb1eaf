/**
 * Moves the guest to another host: where to and how fast, asked twice because it leaves; how far it is, with a way back
 * as long as there is one; and how it went, also when it did not.
 */
import { useRef, useState } from 'preact/hooks';
import {
  api,
  type GuestEvent,
  type MigrationAnswer,
  type MigrationOrder,
  type MigrationState,
} from './api.ts';
import { Confirm, type Question } from './confirm.tsx';
import { duration, percent, size, typedSize } from './format.ts';
import { type GuestView, isMigrating, live } from './live.ts';
import { MigrationReportList } from './migration-report.tsx';
import { useStore } from './store.ts';

export function MigrationCard({ guest }: { guest: GuestView }) {
  const { status, migration: answer } = guest;
  const [refused, setRefused] = useState('');
  if (answer === undefined) return null;
  const act = async (what: () => Promise<unknown>) => {
    setRefused('');
    try {
      await what();
    } catch (error) {
      setRefused((error as Error).message);
    }
    live.refresh();
  };
  return (
    <section class="card migration" aria-label="Migration">
      <h2>Move to another host</h2>
      {isMigrating(guest) ? (
        <UnderWay answer={answer} onCancel={() => void act(() => api.cancelMigration(status.name))} />
      ) : (
        <>
          <Outcome answer={answer} />
          <OrderForm
            guest={guest}
            answer={answer}
            onOrder={order => void act(() => api.migrate(status.name, order))}
          />
        </>
      )}
      <p class="refused" role="alert">
        {refused}
      </p>
    </section>
  );
}

/** The phases in the words of our machines and of QEMU; those of others are shown as they are. */
const PHASES: Readonly<Record<string, string>> = {
  connecting: 'asking the destination',
  copying: 'sending its memory',
  stopping: 'it stands still for the last pages',
  'handing-over': 'handing it over',
  'post-copy': 'it runs there, and its memory follows',
  'post-copy-paused': 'it runs there and waits for memory; the connection is broken',
  setup: 'asking the destination',
  active: 'sending its memory',
  device: 'it stands still for the last pages',
};

/** From here on it cannot be called back. */
const HANDED_OVER = ['handing-over', 'post-copy', 'post-copy-paused', 'done'];

function UnderWay({ answer: { migration }, onCancel }: { answer: MigrationAnswer; onCancel: () => void }) {
  const { totalBytes = null, remainingBytes = null, elapsedMs = 0 } = migration?.state ?? {};
  const share = useMost(
    totalBytes === null || remainingBytes === null ? null : 1 - remainingBytes / totalBytes,
    elapsedMs,
  );
  if (migration === null) return null;
  const { state, to } = migration;
  return (
    <>
      <p class="now">
        To <b>{to}</b>: {PHASES[state.status] ?? state.status}
      </p>
      <progress aria-label="Memory that is there" {...(share === null ? {} : { value: share })} />
      <dl class="pairs">
        {factsOf(state).map(([name, label, value]) => (
          <div key={name}>
            <dt>{label}</dt>
            <dd data-migration={name}>{value}</dd>
          </div>
        ))}
      </dl>
      <div class="buttons">
        <button type="button" disabled={HANDED_OVER.includes(state.status)} onClick={onCancel}>
          Call it back
        </button>
      </div>
    </>
  );
}

/**
 * The most that was there in this migration: what is written while it is sent has to be sent again, and a bar that goes
 * back says nothing of how long it takes. Less time gone by than before means another migration.
 */
function useMost(share: number | null, elapsedMs: number): number | null {
  const seen = useRef<{ share: number | null; elapsedMs: number }>({ share: null, elapsedMs: 0 });
  const before = elapsedMs < seen.current.elapsedMs ? null : seen.current.share;
  const most = share === null ? before : Math.max(share, before ?? 0);
  seen.current = { share: most, elapsedMs };
  return most;
}

function factsOf(state: MigrationState): (readonly [name: string, label: string, value: string])[] {
  const {
    round,
    remainingBytes,
    sentBytes,
    bytesPerSecond,
    expectedDowntimeMs,
    guestShare,
    elapsedMs,
    postcopy,
  } = state;
  const slowed = guestShare !== null && guestShare < 1;
  return [
    ['round', 'round', round === null || round === 0 ? '–' : String(round)],
    ['remaining', 'left of this round', size(remainingBytes)],
    ['sent', 'sent', size(sentBytes)],
    ['rate', 'rate', bytesPerSecond === null ? '–' : `${size(bytesPerSecond)}/s`],
    ['downtime', 'would stand still for', duration(expectedDowntimeMs)],
    ['elapsed', 'under way for', duration(elapsedMs)],
    ...(postcopy
      ? ([
          ['faults', 'pages waited for', String(postcopy.faults)],
          ['longest-fault', 'longest wait', duration(postcopy.longestFaultMs)],
          ...(postcopy.broken === null ? [] : [['broken', 'no page comes', postcopy.broken]]),
        ] as [string, string, string][])
      : []),
    ...(slowed ? [['share', 'slowed down to', percent(guestShare)] as const] : []),
  ];
}

function Outcome({ answer: { migration } }: { answer: MigrationAnswer }) {
  if (migration === null) return null;
  const { to, state, report, error } = migration;
  if (report !== null) return <MigrationReportList to={to ?? 'elsewhere'} report={report} />;
  return (
    <p class={state.status === 'cancelled' ? 'note outcome' : 'refused outcome'} role="status">
      To {to ?? 'elsewhere'}: {error?.message}
    </p>
  );
}

/** A snapshot is no place where it could run. */
const hostIn = (to: string | null): string => (to === null || to.startsWith('file:') ? '' : to);

interface OrderFormProps {
  readonly guest: GuestView;
  readonly answer: MigrationAnswer;
  readonly onOrder: (order: MigrationOrder) => void;
}

/** Where it was sent before, as far back as the daemon remembers. */
const destinationsOf = (name: string, events: readonly GuestEvent[]): readonly string[] => [
  ...new Set(
    events
      .filter(({ guest, type }) => guest === name && type === 'migration')
      .map(({ detail }) => String(detail.to))
      .filter(to => hostIn(to) !== ''),
  ),
];

const DESTINATION = /^(?:tcp:)?(?:\[[^\s\]]+\]|[^\s:[\]]+):\d{1,5}$/;

/** Asked before a guest leaves. */
const questionOf = (
  name: string,
  there: string,
  bandwidth: number | undefined,
  onOrder: (order: MigrationOrder) => void,
): Question => ({
  title: `Move ${name} to ${there}?`,
  body: (
    <p>
      It runs on while its memory is sent, then stands still for a moment, and from then on runs there and not
      here. The process that waits at {there} gets all that is in its memory.
    </p>
  ),
  go: 'Move it',
  onGo: () =>
    onOrder({
      to: there.startsWith('tcp:') ? there : `tcp:${there}`,
      ...(bandwidth === undefined ? {} : { bandwidthBytesPerSecond: bandwidth }),
    }),
});

function OrderForm({ guest: { status }, answer: { migration, obstacle }, onOrder }: OrderFormProps) {
  const places = destinationsOf(status.name, useStore(live.events)).filter(
    place => migration?.report == null || place !== migration.to,
  );
  // Where it is already it need not be sent; where it did not get to, it may be sent again.
  const [to, setTo] = useState(hostIn(migration?.report === null ? migration.to : null));
  const [rate, setRate] = useState('');
  const [question, setQuestion] = useState<Question | undefined>();
  const bandwidth = rate.trim() === '' ? undefined : typedSize(rate);
  const nonsense =
    to !== '' && !DESTINATION.test(to.trim())
      ? 'Write a destination like host2:4444.'
      : rate.trim() !== '' && !bandwidth
        ? 'Write a rate like 100M, or nothing for no limit.'
        : '';
  const ask = () => setQuestion(questionOf(status.name, to.trim(), bandwidth, onOrder));
  const off = obstacle !== null;
  return (
    <form
      onSubmit={event => {
        event.preventDefault();
        if (!off && to.trim() !== '' && nonsense === '') ask();
      }}
    >
      {off && <p class="note">{obstacle}.</p>}
      <div class="fields">
        <label>
          Destination
          <input
            type="text"
            placeholder="host:port"
            spellcheck={false}
            autocomplete="off"
            list="destinations"
            disabled={off}
            aria-invalid={to !== '' && !DESTINATION.test(to.trim())}
            value={to}
            onInput={event => setTo(event.currentTarget.value)}
          />
        </label>
        <label>
          At most, a second
          <input
            type="text"
            placeholder="no limit"
            disabled={off}
            aria-invalid={rate.trim() !== '' && !bandwidth}
            value={rate}
            onInput={event => setRate(event.currentTarget.value)}
          />
        </label>
      </div>
      <datalist id="destinations">
        {places.map(place => (
          <option key={place} value={place} />
        ))}
      </datalist>
      <div class="buttons">
        <button type="submit" disabled={off || to.trim() === '' || nonsense !== ''}>
          Move…
        </button>
      </div>
      <p class="refused" role="alert">
        {nonsense}
      </p>
      <Confirm question={question} onClose={() => setQuestion(undefined)} />
    </form>
  );
}
