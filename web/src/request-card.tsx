/** What a guest of an ABI with a queue for requests can be asked for, and what it answered. */
import { useState } from 'preact/hooks';
import { api, type GuestRequest, type RequestAnswer } from './api.ts';
import { Confirm, type Question } from './confirm.tsx';
import { countText, duration, size } from './format.ts';
import { type GuestView, isMigrating, live } from './live.ts';
import { requestObstacle } from './requests.ts';

interface Action {
  readonly request: GuestRequest;
  readonly label: string;
  readonly title: string;
  /** What it costs the guest, where it does. */
  readonly cost?: string;
}

const ACTIONS: readonly Action[] = [
  {
    request: 'unused-pages',
    label: 'Unused pages',
    title: 'Ask which pages it does not use; they are counted, and stay its own',
  },
  {
    request: 'drop-cache',
    label: 'Drop cache',
    title: 'Ask it to drop its clean page cache',
    cost: 'It gives up its clean page cache, and reads again from its disks what it needs of it: it may be slow for a while.',
  },
  {
    request: 'shrink',
    label: 'Shrink',
    title: 'Ask it to run its shrinkers, and then which pages it does not use',
    cost: 'It gives up caches of its kernel, and builds again what it needs of them: it may be slow for a while.',
  },
];

const labelOf = (request: GuestRequest): string =>
  ACTIONS.find(action => action.request === request)?.label ?? request;

export function RequestCard({ guest }: { guest: GuestView }) {
  const { status } = guest;
  const [asking, setAsking] = useState<GuestRequest | undefined>();
  const [answer, setAnswer] = useState<RequestAnswer | undefined>();
  const [refused, setRefused] = useState('');
  const [question, setQuestion] = useState<Question | undefined>();
  const obstacle =
    requestObstacle(status) ?? (isMigrating(guest) ? 'It is migrating, which may use its queue.' : undefined);
  const ask = async (request: GuestRequest) => {
    setRefused('');
    setAnswer(undefined);
    setAsking(request);
    try {
      setAnswer(await api.request(status.name, request));
    } catch (error) {
      setRefused((error as Error).message);
    }
    setAsking(undefined);
    live.refresh();
  };
  const begin = ({ request, label, cost }: Action) => {
    if (cost === undefined) return void ask(request);
    setQuestion({
      title: `${label} of ${status.name}?`,
      body: <p>{cost}</p>,
      go: label,
      onGo: () => void ask(request),
    });
  };
  return (
    <section class="card request" aria-label="Requests">
      <h2>Ask the guest</h2>
      {obstacle !== undefined && <p class="note">{obstacle}</p>}
      <div class="buttons">
        {ACTIONS.map(action => (
          <button
            key={action.request}
            type="button"
            title={action.title}
            disabled={obstacle !== undefined || asking !== undefined}
            onClick={() => begin(action)}
          >
            {action.label}
          </button>
        ))}
      </div>
      <p class="note answer" role="status">
        {asking !== undefined && `${labelOf(asking)}: asked…`}
        {answer !== undefined && <Answered answer={answer} />}
      </p>
      <p class="refused" role="alert">
        {refused}
      </p>
      <Confirm question={question} onClose={() => setQuestion(undefined)} />
    </section>
  );
}

function Answered({ answer: { request, unusedBytes, lists, elapsedMs } }: { answer: RequestAnswer }) {
  return (
    <>
      {labelOf(request)}:{' '}
      {request === 'drop-cache' ? (
        'done'
      ) : (
        <>
          <b>{size(unusedBytes)}</b> unused, in {countText(lists)} {lists === 1 ? 'list' : 'lists'}
        </>
      )}
      , after {duration(elapsedMs)}
    </>
  );
}
