/** What an embedded guest does at each command, and what it says then. */
import type { MemInfo } from '../guest/meminfo.ts';
import { PAGE_SIZE } from '../memory/page.ts';
import { defined } from '../sys/defined.ts';
import type { CommandName, CommandOf, GuestCommand } from './commands.ts';
import type { EmbeddedGuest } from './embedded-guest.ts';
import { type EmbeddedStatus, embeddedStatusOf } from './status.ts';
import { USER_NAME, Use, WorkloadEnd } from './tasks.ts';

/** Answers by the name of the command. */
export interface CommandAnswers {
  use: { readonly usedBytes: number };
  free: { readonly freedBytes: number };
  want: { readonly heldBytes: number };
  touch: null;
  cache: null;
  start: null;
  stop: null;
  /** Share of free memory outside of blocks of 2 MiB, before and after. */
  age: { readonly before: number; readonly after: number };
  compact: null;
  'drop-caches': { readonly freedBytes: number };
  verify: { readonly checkedBytes: number };
  meminfo: MemInfo;
  status: EmbeddedStatus;
  /** Ballooned runs in rising order: first frame, pages, first frame, pages, … */
  balloon: { readonly runs: readonly number[] };
  settle: { readonly actualBytes: number };
  reset: null;
  remove: null;
  probe: null;
  exit: null;
}

export type CommandAnswer<Name extends CommandName> = CommandAnswers[Name];

type Activities = {
  readonly [Name in CommandName]: (
    machine: EmbeddedGuest,
    command: CommandOf<Name>,
  ) => CommandAnswer<Name> | Promise<CommandAnswer<Name>>;
};

const pagesOf = (bytes: number | undefined): number | undefined =>
  bytes === undefined ? undefined : Math.floor(bytes / PAGE_SIZE);

const sized = (pages: number | undefined) => (pages === undefined ? {} : { pages });

const ACTIVITIES: Activities = {
  use: async ({ guest, processor, users }, { bytes }) => {
    const process = guest.kernel.spawn(USER_NAME);
    const pages = pagesOf(bytes) ?? 0;
    users.add(process);
    try {
      await processor.run(new Use(process, pages));
    } finally {
      if (process.state !== 'running') users.delete(process);
    }
    return { usedBytes: pages * PAGE_SIZE };
  },
  free: ({ kernel, users }) => {
    const before = kernel.allocator.freePages;
    for (const process of users) process.exit();
    users.clear();
    kernel.allocator.drainPerCpu();
    return { freedBytes: (kernel.allocator.freePages - before) * PAGE_SIZE };
  },
  want: async ({ wants, processor }, { bytes, fileBytes, readBytes }) => {
    const wanted = {
      pages: pagesOf(bytes) ?? 0,
      filePages: pagesOf(fileBytes) ?? 0,
      readPages: pagesOf(readBytes) ?? 0,
    };
    await processor.run(wants.want(wanted));
    return { heldBytes: wants.heldPages * PAGE_SIZE };
  },
  touch: async ({ guest, processor }, { bytes }) => {
    const workload = guest.start({ kind: 'touch', ...sized(pagesOf(bytes)) });
    await processor.run(new WorkloadEnd(workload));
    return null;
  },
  cache: async ({ guest, processor }, { bytes }) => {
    const workload = guest.start({ kind: 'read', pages: Math.max(1, pagesOf(bytes) ?? 1) });
    await processor.run(new WorkloadEnd(workload));
    return null;
  },
  start: (machine, { workload, bytes }) => {
    machine.startWorkload(workload, bytes);
    return null;
  },
  stop: ({ guest }) => {
    for (const workload of guest.workloads) workload.stop();
    return null;
  },
  age: ({ movable }, { degree, touch, pinned, holders }) => {
    const aged = movable.age({
      degree,
      ...defined({ touch, pinnedShare: pinned, holdersPerBlock: holders }),
    });
    return { before: aged.before.degree, after: aged.after.degree };
  },
  compact: ({ movable }) => {
    movable.kernel.compact();
    return null;
  },
  'drop-caches': ({ kernel }) => ({ freedBytes: kernel.dropCaches() * PAGE_SIZE }),
  verify: ({ guest, kernel }) => {
    kernel.checkInvariants();
    return { checkedBytes: guest.verify() * PAGE_SIZE };
  },
  meminfo: ({ kernel }) => kernel.meminfo(),
  status: machine => embeddedStatusOf(machine),
  balloon: ({ driver }) => {
    const blocks: [pfn: number, pages: number][] = [];
    driver.forEachBlock((pfn, order) => blocks.push([pfn, 1 << order]));
    return { runs: joined(blocks) };
  },
  settle: async ({ driver }) => {
    await driver.settled();
    return { actualBytes: driver.actualPages * PAGE_SIZE };
  },
  reset: async ({ driver, connection }) => {
    await connection.found();
    await driver.reset();
    return null;
  },
  remove: async ({ driver, connection }) => {
    await connection.found();
    connection.driverWanted = false;
    await driver.remove();
    return null;
  },
  probe: async ({ driver, connection }) => {
    await connection.found();
    connection.driverWanted = true;
    await driver.probe();
    return null;
  },
  exit: async machine => {
    await machine.close();
    return null;
  },
};

function joined(blocks: [pfn: number, pages: number][]): number[] {
  blocks.sort(([a], [b]) => a - b);
  const runs: number[] = [];
  for (const [pfn, pages] of blocks) {
    const at = runs.length - 2;
    if (at >= 0 && runs[at] + runs[at + 1] === pfn) runs[at + 1] += pages;
    else runs.push(pfn, pages);
  }
  return runs;
}

/** @throws AerostatError when the guest cannot do it */
export async function execute(
  machine: EmbeddedGuest,
  command: GuestCommand,
): Promise<CommandAnswer<CommandName>> {
  const act = ACTIVITIES[command.do] as (
    machine: EmbeddedGuest,
    command: GuestCommand,
  ) => CommandAnswer<CommandName> | Promise<CommandAnswer<CommandName>>;
  return act(machine, command);
}
