/**
 * What of a host and its guests is dangerous or costs memory, with what to do about it, by what is known of them. What is
 * not known is no finding. Pure: the command prints, a test feeds.
 */
import { formatSize } from '../sys/size.ts';
import type { DaemonStatus, GuestStatus, HostStatus, StatisticsSample } from './contract.ts';
import { availableShare, isMuchIncomplete, NEED_SHARE, wordBesideAccount } from './judgement.ts';
import { balloonOf } from './memory-use.ts';

/** `danger`: programs may be killed or stand still. `cost`: memory is lost to the host. `note`: worth knowing. */
export const WEIGHTS = ['danger', 'cost', 'note'] as const;
export type Weight = (typeof WEIGHTS)[number];

export interface Finding {
  readonly weight: Weight;
  /** Null where the host is meant. */
  readonly guest: string | null;
  /** For programs; it never changes its meaning. */
  readonly id: string;
  /** One sentence each: what is so, and what it leads to; then what to do. */
  readonly what: string;
  readonly remedy: string;
}

interface Patient {
  readonly host: HostStatus;
  /** Whose guests these are; undefined where no daemon of ours says. */
  readonly daemon?: Pick<DaemonStatus, 'descriptors' | 'kept'> | undefined;
  readonly guests: readonly GuestStatus[];
  readonly samples: Readonly<Record<string, StatisticsSample>>;
  /** Why nothing is known of some guests. */
  readonly failures: ReadonlyMap<string, Error>;
}

/** Below this share of its memory available, a host is about to swap or kill. */
const HOST_NEED_SHARE = 0.05;
/** Programs that wait for memory for so much of a minute are slowed down. */
const PRESSURE_PERCENT = 5;
/** Statistics that are older say nothing of now. */
const OLD_SAMPLE_MS = 60_000;
/** A guest takes about twenty; the next one may find none. */
const DESCRIPTORS_SHARE = 0.8;

type Found = Omit<Finding, 'guest'>;

/** Findings in order of weight; those of the host before those of guests. */
export function diagnose(patient: Patient): readonly Finding[] {
  const ofHost = [...findInHost(patient), ...daemonFindings(patient)].map(found => ({
    guest: null,
    ...found,
  }));
  const ofGuests = patient.guests.flatMap(guest =>
    findInGuest(guest, patient).map(found => ({ guest: guest.name, ...found })),
  );
  return WEIGHTS.flatMap(weight => [...ofHost, ...ofGuests].filter(found => found.weight === weight));
}

function* hostFindings({ host, guests }: Patient): Generator<Found> {
  const { totalBytes, availableBytes, swapTotalBytes, pressure } = host;
  if (pressure !== null && pressure.some60Percent >= PRESSURE_PERCENT) {
    yield {
      weight: 'danger',
      id: 'host-pressure',
      what: `Programs of the host waited for memory for ${pressure.some60Percent} % of the last minute.`,
      remedy:
        'Take memory from guests that can spare it (aerostat top), or move one away (aerostat migrate).',
    };
  }
  if (totalBytes === null) return;
  if (availableBytes !== null && availableBytes < HOST_NEED_SHARE * totalBytes) {
    yield {
      weight: 'danger',
      id: 'host-memory-low',
      what: `The host has ${formatSize(availableBytes)} of ${formatSize(totalBytes)} left.`,
      remedy:
        'Take memory from guests that can spare it (aerostat top), or move one away (aerostat migrate).',
    };
  }
  const promised = guests.reduce((sum, guest) => sum + (guest.memoryBytes ?? 0), 0);
  if (promised <= totalBytes) return;
  const words = `Guests may use ${formatSize(promised)} of the host's ${formatSize(totalBytes)}`;
  if (swapTotalBytes === 0) {
    yield {
      weight: 'danger',
      id: 'overcommitted-without-swap',
      what: `${words}, and there is no swap: the kernel kills when they do.`,
      remedy: 'Add swap, give guests less, or let a policy hold a reserve (aerostat policy --help).',
    };
  } else {
    yield {
      weight: 'note',
      id: 'overcommitted',
      what: `${words}; the rest would be swapped.`,
      remedy: 'Let a policy hold a reserve (aerostat policy --help), and watch the pressure in aerostat top.',
    };
  }
}

function daemonFindings({ daemon }: Patient): readonly Found[] {
  const found: Found[] = [];
  const { descriptors = null, kept = null } = daemon ?? {};
  if (descriptors !== null && descriptors.open > DESCRIPTORS_SHARE * descriptors.max) {
    found.push({
      weight: 'danger',
      id: 'descriptors-low',
      what: `The daemon has ${descriptors.open} of the ${descriptors.max} descriptors open that it may have; without one no guest can connect.`,
      remedy: 'Raise the limit of open files: LimitNOFILE= in its unit, or ulimit -n before it is started.',
    });
  }
  if (kept === false) {
    found.push({
      weight: 'note',
      id: 'no-keeper',
      what: 'Nothing keeps what guests need when the daemon ends: those whose front-end connects once lose their balloon then.',
      remedy: 'Start aerostat keep, and the daemon with --keep SOCKET, or with --keep systemd in a unit.',
    });
  }
  return found;
}

const findInHost = (patient: Patient): readonly Found[] => [...hostFindings(patient)];

function findInGuest(guest: GuestStatus, { samples, failures }: Patient): readonly Found[] {
  const failure = failures.get(guest.name);
  if (failure !== undefined) {
    return [
      {
        weight: 'cost',
        id: 'unreachable',
        what: `Nothing is known of it: ${failure.message}.`,
        remedy: 'See that its daemon or QEMU runs, and that no other program holds its monitor.',
      },
    ];
  }
  const sample = samples[guest.name];
  const standing = stateFindings(guest);
  return [
    ...standing,
    ...(guest.features === null || standing.length > 0 ? [] : featureFindings(guest, guest.features)),
    ...memoryFindings(guest),
    ...needFindings(guest, sample),
  ];
}

function stateFindings({ connected, state, profile, memoryBytes, lastError }: GuestStatus): readonly Found[] {
  if (state === 'silent') {
    return [
      {
        weight: 'cost',
        id: 'silent',
        what: 'It does not answer: its front-end is stopped, or hangs.',
        remedy: 'See what its hypervisor does; its balloon stays as it is until then.',
      },
    ];
  }
  if (connected && state === 'no-driver') {
    return [
      {
        weight: 'cost',
        id: 'no-driver',
        what: 'Its balloon driver is not at work, so that none of its memory comes back.',
        remedy:
          'Load virtio_balloon in the guest (modprobe virtio_balloon); Windows has it in its virtio drivers.',
      },
    ];
  }
  // Its memory is known and no device is: a hypervisor that answers, and gave the guest no balloon.
  if (!connected && profile === null && memoryBytes !== null) {
    return [
      {
        weight: 'cost',
        id: 'no-balloon',
        what: `It has no balloon${lastError === null ? '' : `: ${lastError}`}.`,
        remedy: "Give it a balloon device; in libvirt: <memballoon model='virtio' freePageReporting='on'/>",
      },
    ];
  }
  return [];
}

function featureFindings(guest: GuestStatus, features: readonly string[]): readonly Found[] {
  const found: Found[] = [];
  const has = (feature: string) => features.includes(feature);
  if (!has('page-reporting') && guest.profile === 'virtio') {
    found.push({
      weight: 'cost',
      id: 'no-reporting',
      what: 'Free page reporting is off: what the guest frees stays with it until a balloon takes it.',
      remedy:
        "Switch it on: free-page-reporting=on of QEMU's device, in libvirt freePageReporting='on', on ours no --without; the guest needs Linux 5.7 or newer.",
    });
  }
  const ballooned = balloonOf(guest) ?? 0;
  if (!has('deflate-on-oom') && ballooned === 0 && guest.targetOwner?.by === 'policy') {
    found.push({
      weight: 'danger',
      id: 'no-deflate-on-oom',
      what: 'A policy steers its balloon, which gives nothing back in need: the guest kills programs instead.',
      remedy:
        "Switch deflate-on-oom on: of QEMU's device, in libvirt autodeflate='on', on ours no --without; or leave it to no policy (mode = \"off\").",
    });
  }
  if (!has('deflate-on-oom') && ballooned > 0) {
    found.push({
      weight: 'danger',
      id: 'no-deflate-on-oom',
      what: `Its balloon holds ${formatSize(ballooned)} and gives nothing back in need: the guest kills programs instead.`,
      remedy:
        "Switch deflate-on-oom on: of QEMU's device, in libvirt autodeflate='on', on ours no --without; or keep its balloon small.",
    });
  }
  if (!has('stats-vq')) {
    found.push({
      weight: 'cost',
      id: 'no-statistics',
      what: 'It gives no statistics: how much it can spare is not known, and no target is guarded.',
      remedy:
        "Use a driver with statistics; on ours no --without, in libvirt <stats period='5'/> in <memballoon>.",
    });
  }
  return found;
}

function memoryFindings(guest: GuestStatus): readonly Found[] {
  const found: Found[] = [];
  const failures = guest.counters?.punchFailures ?? 0;
  if (failures > 0) {
    found.push({
      weight: 'cost',
      id: 'discards-fail',
      what: `Memory that it gave away could not be given back to the host, ${failures} times${guest.lastError === null ? '' : ` (${guest.lastError})`}.`,
      remedy:
        'Keep guest memory in a memfd, on tmpfs or hugetlbfs, and out of reach of passed-through devices (VFIO).',
    });
  }
  if (guest.memorySealed === false) {
    found.push({
      weight: 'note',
      id: 'unsealed-memory',
      what: 'Its front-end can shrink its memory, which would end the daemon and the balloons of all its guests.',
      remedy: 'Use a memfd that takes seals (memory-backend-memfd), or give it a daemon of its own.',
    });
  }
  if (guest.memoryPlace === 'disk') {
    found.push({
      weight: 'cost',
      id: 'memory-on-disk',
      what: 'Its memory lies in a file on a disk: each page that comes back is written there, and punches are slow.',
      remedy: "Use a memfd or a file on tmpfs (memory-backend-memfd; in libvirt <source type='memfd'/>).",
    });
  }
  if (isMuchIncomplete(guest)) {
    found.push({
      weight: 'cost',
      id: 'incomplete-huge-pages',
      what: `${formatSize(guest.incompleteBytes ?? 0)} of its balloon stay with the host: the guest gave parts of huge pages only.`,
      remedy: 'Balloon more at once, early after its boot, or back it with small pages.',
    });
  }
  const beyond = wordBesideAccount(guest);
  if (beyond > 0) {
    found.push({
      weight: 'cost',
      id: 'balloon-not-given',
      what: `It says that its balloon holds ${formatSize(beyond)} more than it gave.`,
      remedy: 'See its last error in aerostat status, and its driver: lists that are refused look like this.',
    });
  }
  if (guest.stuck !== null) {
    found.push({
      weight: guest.stuck.swings ? 'danger' : 'note',
      id: guest.stuck.swings ? 'swings' : 'stuck',
      what: guest.stuck.swings
        ? 'It gives memory and takes it back again and again: its target is above what it can spare.'
        : `Its balloon gets no nearer to ${formatSize(guest.targetBytes ?? 0)}; it holds ${formatSize(guest.actualBytes ?? 0)}.`,
      remedy: 'Set a lower target.',
    });
  }
  return found;
}

function needFindings(guest: GuestStatus, sample: StatisticsSample | undefined): readonly Found[] {
  const found: Found[] = [];
  const asked =
    guest.connected &&
    guest.features?.includes('stats-vq') === true &&
    (guest.state === 'running' || guest.state === null);
  if (asked && (sample === undefined || sample.ageMs === null || sample.ageMs > OLD_SAMPLE_MS)) {
    found.push({
      weight: 'note',
      id: 'old-statistics',
      what: 'Its statistics are older than a minute, or were never asked for.',
      remedy:
        "Ask for them regularly: aerostat set GUEST --poll-interval 5s, in libvirt <stats period='5'/>.",
    });
    return found;
  }
  const available = availableShare(guest, sample);
  if (available !== null && available.share < NEED_SHARE) {
    found.push({
      weight: 'danger',
      id: 'guest-memory-low',
      what: `Its programs can get only ${(100 * available.share).toFixed(1)} % of its memory.`,
      remedy: 'Give memory back (aerostat set GUEST --balloon 0), or give the guest more.',
    });
  }
  const kills = sample?.statistics.oomKills ?? 0;
  if (kills > 0) {
    found.push({
      weight: 'note',
      id: 'killed-for-memory',
      what: `Its kernel has killed for want of memory, ${kills} times since it booted.`,
      remedy:
        'See its log for when that was; a balloon that is smaller, or deflate-on-oom, prevents the next.',
    });
  }
  return found;
}
