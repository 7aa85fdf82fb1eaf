/** How a guest's memory divides, as a bar; below it, thinner, what of it the host holds. */
import type { MemoryUse } from '../../src/control/memory-use.ts';
import { size } from './format.ts';

interface Segment {
  readonly kind: string;
  readonly label: string;
  readonly bytes: number;
}

/** Free in the guest, and nothing of the host's. */
const FREE_AWAY = 'reported or untouched';

/** What a part of the bar is; shown where one points at it. */
const TITLES: Readonly<Record<string, string>> = {
  used: 'What the guest’s kernel and programs use',
  cache: 'Cached files, which the guest can drop',
  free: 'Free in the guest; what the host holds for it is not known',
  'free-held': 'Free in the guest, and yet the host holds memory for it: what a balloon would gain',
  'free-away':
    'Free in the guest, and the host holds nothing for it: given back by free page reporting, or never written to',
  pending: 'Given away by the guest, not yet given back to the host',
  ballooned: 'Given away by the guest, and back at the host',
  unknown: 'The guest sent no statistics, so what it does with this is not known',
  resident: 'What the host holds for the guest right now',
};

export const titleOf = (kind: string): string => TITLES[kind] ?? '';

/** In the order of the bar; what is not known is one segment that says so. */
export function segmentsOf(use: MemoryUse): readonly Segment[] {
  const { used, cache, ballooned, pending, memory } = use;
  const own: readonly Segment[] =
    used === null
      ? [{ kind: 'unknown', label: 'not told by guest', bytes: memory - ballooned }]
      : [
          { kind: 'used', label: 'used', bytes: used },
          { kind: 'cache', label: 'cache', bytes: cache ?? 0 },
          ...freeSegments(use),
        ];
  return [
    ...own,
    { kind: 'pending', label: 'pending', bytes: pending },
    { kind: 'ballooned', label: 'ballooned', bytes: ballooned - pending },
  ];
}

/** Whether the host holds it is known only where its resident figure is; nothing is painted as held that may not be. */
function freeSegments({ free, freeHeld, freeAway }: MemoryUse): readonly Segment[] {
  if (freeHeld === null) return [{ kind: 'free', label: 'free', bytes: free ?? 0 }];
  return [
    { kind: 'free-held', label: 'free, held by host', bytes: freeHeld },
    { kind: 'free-away', label: FREE_AWAY, bytes: freeAway ?? 0 },
  ];
}

function describeUse(use: MemoryUse): string {
  const parts = segmentsOf(use)
    .filter(({ bytes }) => bytes > 0)
    .map(({ label, bytes }) => `${label} ${size(bytes)}`);
  const resident =
    use.resident === null ? 'what the host holds is not known' : `the host holds ${size(use.resident)}`;
  return `Memory of ${size(use.memory)}: ${parts.join(', ')}; ${resident}`;
}

const share = (bytes: number, of: number): string => `${of === 0 ? 0 : Math.min(100, (100 * bytes) / of)}%`;

export function MemoryBar({ use, large = false }: { use: MemoryUse; large?: boolean }) {
  const { memory, resident } = use;
  return (
    <span class={large ? 'memory-bar large' : 'memory-bar'} role="img" aria-label={describeUse(use)}>
      <span class="parts">
        {segmentsOf(use).map(({ kind, label, bytes }) => (
          <i
            key={kind}
            class={kind}
            style={{ width: share(bytes, memory) }}
            title={`${label} ${size(bytes)}: ${titleOf(kind)}`}
          />
        ))}
      </span>
      <span class="held">
        {resident !== null && (
          <i
            class="resident"
            style={{ width: share(resident, memory) }}
            title={`the host holds ${size(resident)}`}
          />
        )}
      </span>
    </span>
  );
}

const LEGEND: readonly (readonly [kind: string, label: string])[] = [
  ['used', 'used'],
  ['cache', 'cache'],
  ['free-held', 'free, held by host'],
  ['free-away', FREE_AWAY],
  ['pending', 'pending'],
  ['ballooned', 'ballooned'],
  ['unknown', 'not told by guest'],
  ['resident', 'host resident'],
];

export function BarLegend() {
  return (
    <ul class="legend" aria-label="Colours of the bars">
      {LEGEND.map(([kind, label]) => (
        <li key={kind} title={titleOf(kind)}>
          <i class={`swatch ${kind}`} />
          {label}
        </li>
      ))}
    </ul>
  );
}
