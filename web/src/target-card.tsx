/**
 * Sets the balloon's target. The slider is a draft; nothing happens until it is set. What the guest
 * says it can spare is marked, and taking more than that needs a confirmation.
 */

import { useEffect, useState } from 'preact/hooks';
import {
  doubtOf,
  incompleteWords,
  isMoving,
  isNear,
  keptWords,
  removedWords,
  stuckWords,
} from '../../src/control/judgement.ts';
import { balloonLimit } from '../../src/control/memory-use.ts';
import { PAGE_SIZE } from '../../src/memory/page.ts';
import { api, RefusalError } from './api.ts';
import { Confirm, type Question } from './confirm.tsx';
import { duration, size, typedSize } from './format.ts';
import { type GuestView, live } from './live.ts';

/** Some five hundred steps over all of memory, whole MiB where that is not coarser. */
function stepOf(memory: number): number {
  const step = 2 ** Math.ceil(Math.log2(memory / 512));
  return Math.max(PAGE_SIZE, step);
}

/** A target that is set on the slider and not yet sent, and how it is sent. */
function useDraft(guest: GuestView) {
  const { status } = guest;
  // A hypervisor does not tell a target that another client set; then the balloon is to stay as it is.
  const target = status.targetBytes ?? status.actualBytes ?? 0;
  const [draft, setDraft] = useState<number | undefined>();
  const [text, setText] = useState<string | undefined>();
  const [refused, setRefused] = useState('');
  const [question, setQuestion] = useState<Question | undefined>();
  const wanted = draft ?? target;
  // Another client may have set it meanwhile.
  useEffect(() => {
    if (draft === target) setDraft(undefined);
  }, [target]);

  const change = (bytes: number) => {
    setDraft(bytes);
    setText(undefined);
    setRefused('');
  };
  const type = (typed: string) => {
    setText(typed);
    const bytes = typedSize(typed);
    if (bytes !== undefined) setDraft(bytes);
  };
  const reset = () => {
    setDraft(undefined);
    setText(undefined);
  };
  const set = async (bytes: number, force = false) => {
    setRefused('');
    try {
      await api.change(status.name, force ? { targetBytes: bytes, force } : { targetBytes: bytes });
      reset();
    } catch (error) {
      // The daemon knows of a doubt that the page does not: its figures are newer.
      const doubted = error instanceof RefusalError && error.code === 'AEROSTAT_UNCONFIRMED';
      if (doubted) askWhether(bytes, error.message);
      else setRefused((error as Error).message);
    }
    live.refresh();
  };
  const askWhether = (bytes: number, doubt: string) =>
    setQuestion({
      title: `Take ${size(bytes)} from ${status.name}?`,
      body: <p>{doubt}</p>,
      go: `Take ${size(bytes)}`,
      onGo: () => void set(bytes, true),
    });
  const ask = () => {
    const doubt = doubtWords(guest, wanted);
    if (doubt === undefined) void set(wanted);
    else askWhether(wanted, doubt);
  };
  const touched = draft !== undefined || text !== undefined;
  const answered = () => setQuestion(undefined);
  return { target, wanted, text, touched, refused, question, change, type, reset, ask, answered };
}

export function TargetCard({ guest }: { guest: GuestView }) {
  const { status, use } = guest;
  const { target, wanted, text, touched, refused, question, ...draft } = useDraft(guest);
  const memory = use?.memory ?? null;
  const limit = balloonLimit(use);
  const nonsense = nonsenseWords(text, wanted, memory);
  return (
    <section class="card target" aria-label="Balloon target">
      <h2>Balloon</h2>
      <p class="now">
        <b data-figure="actual">{size(status.actualBytes)}</b> of{' '}
        <b data-figure="target">{size(status.targetBytes)}</b>
        <span class="progress"> {progressWords(guest)}</span>
      </p>
      <Notes guest={guest} />
      <form
        onSubmit={event => {
          event.preventDefault();
          if (nonsense === '' && wanted !== target) draft.ask();
        }}
        onKeyDown={event => {
          if (event.key === 'Escape') draft.reset();
        }}
      >
        {memory !== null && (
          <Slider
            memory={memory}
            value={wanted}
            held={use?.ballooned ?? 0}
            limit={limit}
            onChange={draft.change}
          />
        )}
        <div class="set">
          <input
            type="text"
            class="size"
            aria-label="Target of the balloon"
            aria-invalid={nonsense !== ''}
            value={text ?? size(wanted)}
            onInput={event => draft.type(event.currentTarget.value)}
          />
          <button type="submit" class="primary" disabled={nonsense !== '' || wanted === target}>
            Set target
          </button>
          <button type="button" onClick={draft.reset} disabled={!touched}>
            Reset
          </button>
        </div>
      </form>
      <p class="note">
        {memory !== null && <>Leaves the guest {size(Math.max(0, memory - wanted))}. </>}
        {spareWords(guest, memory, limit)}
      </p>
      <p class="refused" role="alert">
        {nonsense || refused}
      </p>
      <Confirm question={question} onClose={draft.answered} />
    </section>
  );
}

/** What is to be known of the target beside its size; nothing, mostly. */
function Notes({ guest: { status } }: { guest: GuestView }) {
  const kept = keptWords(status, size);
  const removed = removedWords(status, size);
  const waiting = incompleteWords(status, size);
  return (
    <>
      {kept !== '' && (
        <p class="note" data-figure="kept">
          Set so that {kept}: the target follows memory that is added or removed.
        </p>
      )}
      {removed !== '' && (
        <p class="note" data-figure="removed">
          {removed}.
        </p>
      )}
      {waiting !== '' && (
        <p class="note" data-figure="incomplete">
          {waiting}: the guest has not given the rest of them, and the host keeps them.
        </p>
      )}
    </>
  );
}

/** What is wrong with what was typed or set; empty when nothing is. */
function nonsenseWords(text: string | undefined, wanted: number, memory: number | null): string {
  if (text !== undefined && typedSize(text) === undefined) return 'Write a size like 512M or 1.5G.';
  return memory !== null && wanted > memory ? `It has ${size(memory)} in all.` : '';
}

function spareWords(guest: GuestView, memory: number | null, limit: number | null): string {
  if (memory === null) return 'Its memory is not known until it connects.';
  if (limit === null) return 'What it can spare is not known: it sent no statistics.';
  return `It says that it can spare ${size(limit)}${isOld(guest) ? ', before its balloon was changed' : ''}.`;
}

/** What speaks against it, in words; undefined when nothing does. */
function doubtWords({ status, use }: GuestView, wanted: number): string | undefined {
  const doubt = doubtOf(status, use, wanted);
  if (doubt === undefined) return undefined;
  const left = size(doubt.leftBytes);
  if (doubt.limitBytes === null)
    return `What this guest can spare is not known. ${left} would be left to it.`;
  const outcome = status.features?.includes('deflate-on-oom')
    ? 'It will reclaim its page cache, may swap, and takes memory back from the balloon when it runs out.'
    : 'It will reclaim its page cache, may swap, and kills programs when it runs out: its driver did not take deflate-on-oom.';
  const when = doubt.old ? ', before its balloon was changed' : '';
  return `It says that it can spare ${size(doubt.limitBytes)}${when}; ${left} would be left to it. ${outcome}`;
}

/** The guest said what it can spare before its balloon was changed last. */
const isOld = ({ status, use }: GuestView): boolean =>
  use?.sparedAt != null && !isNear(status.balloonedBytes ?? status.actualBytes ?? 0, use.sparedAt);

function progressWords({ status }: GuestView): string {
  const { progress, pendingBytes } = status;
  const stuck = stuckWords(status, size, duration);
  if (stuck !== '') return stuck;
  if (isMoving(status))
    return pendingBytes ? `moving, ${size(pendingBytes)} on its way to the host` : 'moving';
  if (progress?.reachedMs === null || progress === null || progress.reachedMs === undefined) return '';
  const host = progress.drainedMs === null ? '' : `, at the host after ${duration(progress.drainedMs)}`;
  return `reached in ${duration(progress.reachedMs)}${host}`;
}

interface SliderProps {
  readonly memory: number;
  readonly value: number;
  readonly held: number;
  readonly limit: number | null;
  readonly onChange: (bytes: number) => void;
}

function Slider({ memory, value, held, limit, onChange }: SliderProps) {
  const step = stepOf(memory);
  const at = (bytes: number) => `${Math.min(100, (100 * bytes) / memory)}%`;
  return (
    <div class="slider">
      <div class="track" aria-hidden="true">
        <i class="wanted" style={{ width: at(value) }} />
        <i class="held" style={{ width: at(held) }} />
        {limit !== null && (
          <i
            class="beyond"
            style={{ left: at(limit) }}
            title={`Below the guest’s floor: it can spare ${size(limit)}`}
          />
        )}
      </div>
      <input
        type="range"
        min={0}
        max={memory}
        step={step}
        value={value}
        aria-label="Target of the balloon, by slider"
        aria-valuetext={`${size(value)} of ${size(memory)}${limit !== null && value > limit ? ', more than the guest can spare' : ''}`}
        onInput={event => onChange(Math.min(memory, Number(event.currentTarget.value)))}
      />
      <div class="scale" aria-hidden="true">
        <span>0</span>
        {limit !== null && (
          <span
            class="floor"
            style={{ left: `clamp(2.5em, ${at(limit)}, 100% - 6.5em)` }}
            title={`What the guest needs lies beyond: it can spare ${size(limit)}`}
          >
            floor
          </span>
        )}
        <span>{size(memory)}</span>
      </div>
    </div>
  );
}
