/** What a person can set of one guest under the memory policy: its mode, minimum, maximum and shares. */
import { useState } from 'preact/hooks';
import { api, type GuestPolicy, type GuestPolicyChanges } from './api.ts';
import { size, typedSize } from './format.ts';
import type { PolicyView } from './policy-live.ts';

type Field = 'minBytes' | 'maxBytes' | 'shares';

const FIELDS: readonly (readonly [field: Field, label: string])[] = [
  ['minBytes', 'Minimum'],
  ['maxBytes', 'Maximum'],
  ['shares', 'Shares'],
];

type Draft = Partial<Record<Field, string>>;

/** A size, a number, or null for the default; undefined for what is neither. */
function readField(field: Field, text: string): number | null | undefined {
  const typed = text.trim();
  if (typed === '') return null;
  if (field !== 'shares') return typedSize(typed);
  return /^[1-9]\d{0,6}$/.test(typed) ? Number(typed) : undefined;
}

const textOf = (field: Field, value: number | null): string =>
  value === null ? '' : field === 'shares' ? String(value) : size(value);

/** Only what was typed; null where something of it is no value. */
function changesOf(draft: Draft): GuestPolicyChanges | null {
  const entries = FIELDS.flatMap(([field]) => {
    const text = draft[field];
    return text === undefined ? [] : [[field, readField(field, text)] as const];
  });
  return entries.some(([, value]) => value === undefined) ? null : Object.fromEntries(entries);
}

export function PolicySettings({ guest, act }: { guest: GuestPolicy; act: PolicyView['act'] }) {
  const { name, mode, settings } = guest;
  const [draft, setDraft] = useState<Draft>({});
  const [refused, setRefused] = useState('');
  const changes = changesOf(draft);
  const touched = Object.keys(draft).length > 0;
  const attempt = async (action: () => Promise<unknown>): Promise<void> => {
    setRefused('');
    try {
      await act(action);
      setDraft({});
    } catch (error) {
      setRefused((error as Error).message);
    }
  };
  return (
    <form
      class="policy-settings"
      aria-label={`Settings of ${name}`}
      onSubmit={event => {
        event.preventDefault();
        if (changes !== null && touched) void attempt(() => api.changeGuestPolicy(name, changes));
      }}
    >
      <h3>Settings</h3>
      <Modes mode={mode} name={name} attempt={attempt} />
      <div class="policy-fields">
        {FIELDS.map(([field, label]) => (
          <label key={field}>
            {label}
            <input
              type="text"
              placeholder="default"
              aria-label={`${label} of ${name}`}
              aria-invalid={draft[field] !== undefined && readField(field, draft[field]) === undefined}
              value={draft[field] ?? textOf(field, settings[field])}
              onInput={event => setDraft({ ...draft, [field]: event.currentTarget.value })}
            />
          </label>
        ))}
        <button type="submit" class="primary" disabled={!touched || changes === null}>
          Set
        </button>
        <button type="button" disabled={!touched} onClick={() => setDraft({})}>
          Reset
        </button>
      </div>
      <p class="note">Empty is the default.</p>
      <p class="refused" role="alert">
        {refused}
      </p>
    </form>
  );
}

interface ModesProps {
  readonly mode: GuestPolicy['mode'];
  readonly name: string;
  readonly attempt: (action: () => Promise<unknown>) => Promise<void>;
}

function Modes({ mode, name, attempt }: ModesProps) {
  const set = (wanted: GuestPolicy['mode']) =>
    void attempt(() => api.changeGuestPolicy(name, { mode: wanted }));
  return (
    <div class="buttons">
      {mode === 'auto' && (
        <button type="button" onClick={() => set('hold')} title="Its target stays as it is">
          Hold
        </button>
      )}
      {mode === 'hold' && (
        <button
          type="button"
          class="primary"
          onClick={() => void attempt(() => api.resumePolicy(name))}
          title="The policy sets its target again"
        >
          Resume
        </button>
      )}
      {mode === 'off' ? (
        <button type="button" onClick={() => set('auto')}>
          Steer it
        </button>
      ) : (
        <button type="button" onClick={() => set('off')} title="The policy leaves it alone">
          Leave it alone
        </button>
      )}
    </div>
  );
}
