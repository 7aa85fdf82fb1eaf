/**
 * QEMU's balloon device and ours as one thing to a test: a transport for a driver, guest memory in a file that both
 * sides share, and what an operator sees and does. QEMU's device is driven by qtest, ours over vhost-user in a daemon.
 */
import type { Statistics } from '../../../src/balloon/statistics.ts';
import type { GuestStatus } from '../../../src/control/contract.ts';
import type { Control } from '../../../src/control/operations.ts';
import type { FileBacking } from '../../../src/memory/file-backing.ts';
import type { GuestMemory } from '../../../src/memory/guest-memory.ts';
import { PAGE_SIZE } from '../../../src/memory/page.ts';
import { QtestMachine } from '../../../src/peers/qemu/qtest-machine.ts';
import { QemuControl } from '../../../src/qemu/qemu-control.ts';
import { fileStatus } from '../../../src/sys/file.ts';
import { Reactor } from '../../../src/sys/poll.ts';
import { VhostUserFrontend } from '../../../src/vhost-user/frontend-session.ts';
import { createSharedMemory } from '../../../src/vhost-user/shared-memory.ts';
import type { VirtioTransport } from '../../../src/virtio/transport.ts';
import { DaemonProcess } from '../../support/daemon.ts';

export type DeviceMaker = 'QEMU' | 'Aerostat';

/** What an operator of either can do. */
interface Operator {
  guest(name: string): Promise<Pick<GuestStatus, 'actualBytes'>>;
  change(name: string, changes: { targetBytes: number }): Promise<unknown>;
  statistics: Control['statistics'];
}

export interface DeviceUnderTest {
  readonly maker: DeviceMaker;
  readonly memory: GuestMemory;
  readonly transport: VirtioTransport;
  /** Asks for a balloon of so many pages. */
  aim(pages: number): Promise<void>;
  /** What the device's operator sees of the balloon's size; NaN where the device does not know it, as where ours has no driver. */
  actualPages(): Promise<number>;
  statistics(): Promise<Statistics>;
  /** Pages of guest memory that the host holds right now. */
  residentPages(): number;
  /** Settles when the device asks for free page hints. QEMU does so while it migrates, ours when it is told to. */
  wishForHints(): Promise<void>;
  close(): Promise<void>;
}

export interface DeviceChoice {
  readonly memoryBytes: number;
  /** Free page hints are offered. They move the queues behind them by one, so that not every test wants them. */
  readonly hints?: boolean;
}

const GUEST = 'vm';

export const startDevice = (maker: DeviceMaker, choice: DeviceChoice): Promise<DeviceUnderTest> =>
  maker === 'QEMU' ? startQemus(choice) : startOurs(choice);

async function startQemus({ memoryBytes, hints = false }: DeviceChoice): Promise<DeviceUnderTest> {
  const machine = await QtestMachine.start({
    memoryBytes,
    running: true,
    balloon: {
      packed: 'on',
      'free-page-reporting': 'on',
      'deflate-on-oom': 'on',
      ...(hints ? { 'free-page-hint': 'on', iothread: 'hints' } : {}),
    },
    args: hints ? ['-object', 'iothread,id=hints'] : [],
  });
  const control = new QemuControl([{ name: GUEST, qmpPath: machine.qemu.qmpPath }]);
  const close = async () => {
    control.close();
    await machine.close();
  };
  try {
    const transport = await machine.openBalloon();
    const { qmp } = machine.qemu;
    return {
      maker: 'QEMU',
      memory: machine.memory,
      transport,
      ...operated(control),
      residentPages: () => machine.residentBytes() / PAGE_SIZE,
      wishForHints: async () => {
        // Slow, so that the session lasts for as long as a test looks at it.
        await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 2 ** 16 });
        await qmp.execute('migrate', { uri: 'exec:cat >/dev/null' });
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

async function startOurs({ memoryBytes, hints = false }: DeviceChoice): Promise<DeviceUnderTest> {
  const daemon = await DaemonProcess.start([GUEST], hints ? [] : ['--without', 'free-page-hint']);
  const memory = createSharedMemory({ regions: [{ guestAddress: 0, size: memoryBytes }] });
  const loop = new VisitedReactor();
  const close = async () => {
    transport?.close();
    loop.close();
    memory.close();
    await daemon.stop();
  };
  let transport: VhostUserFrontend | undefined;
  try {
    const { control } = daemon;
    transport = await VhostUserFrontend.connect(daemon.socketOf(GUEST), { reactor: loop.reactor, memory });
    const { fd } = memory.regions[0].backing as FileBacking;
    return {
      maker: 'Aerostat',
      memory,
      transport,
      ...operated(control),
      residentPages: () => fileStatus(fd).residentBytes / PAGE_SIZE,
      wishForHints: async () => {
        await control.hint(GUEST, { action: 'start' });
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

const operated = (control: Operator) => ({
  aim: async (pages: number) => {
    await control.change(GUEST, { targetBytes: pages * PAGE_SIZE });
  },
  actualPages: async () => ((await control.guest(GUEST)).actualBytes ?? Number.NaN) / PAGE_SIZE,
  statistics: async () => (await control.statistics(GUEST, { freshMs: 0, timeoutMs: 30_000 })).statistics,
});

/** A reactor that is turned between the turns of Node's own loop, so that a test can wait for both. */
class VisitedReactor {
  readonly reactor = new Reactor();
  #closed = false;

  constructor() {
    this.#turn();
  }

  #turn(): void {
    if (this.#closed) return;
    this.reactor.turn(1);
    setImmediate(() => this.#turn());
  }

  close(): void {
    this.#closed = true;
    this.reactor.close();
  }
}
