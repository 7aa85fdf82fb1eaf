/** A QEMU with a balloon, as far as its monitor shows it; the monitor itself is fake-monitor.ts's. */
import type { FakeMonitor, FakeRequest } from './fake-monitor.ts';

const GIB = 2 ** 30;

export class FakeQemu {
  readonly memoryBytes = GIB;
  left = GIB;
  interval = 0;
  /** Seconds since the epoch. */
  updated = 0;
  balloon = true;
  /** Whether the guest has a driver at work. */
  driver = true;
  /** QEMU's RunState. */
  runState = 'running';
  features = ['VIRTIO_BALLOON_F_STATS_VQ: words', 'VIRTIO_BALLOON_F_REPORTING: words'];
  /** What query-migrate says, one after the other; the last again and again. */
  migrations: unknown[] = [];
  /** What becomes of a request for statistics. */
  askStatistics = () => {
    this.updated = 1_800_000_000;
  };

  answer(request: FakeRequest, monitor: FakeMonitor): void {
    const { command, arguments: args } = request;
    if (command === 'balloon') {
      monitor.answer(request, {});
      // The guest of a machine that stands still reads no target.
      if (this.runState !== 'running') return;
      this.left = Number(args.value);
      monitor.event('BALLOON_CHANGE', { actual: this.left });
    } else if (command === 'query-balloon' && !this.balloon) {
      monitor.refuse(request, 'DeviceNotActive', 'No balloon device has been activated');
    } else if (command === 'qom-set') {
      if (this.interval === 0 && Number(args.value) > 0) this.askStatistics();
      this.interval = Number(args.value);
      monitor.answer(request, {});
    } else if (command === 'x-query-virtio-status' && this.features.length === 0) {
      monitor.refuse(request, 'CommandNotFound', 'The command has not been found');
    } else {
      monitor.answer(request, this.#tell(command, args));
    }
  }

  #migrate(): unknown {
    if (this.migrations.length > 1) return this.migrations.shift();
    return this.migrations[0] ?? {};
  }

  #tell(command: string, args: Record<string, unknown>): unknown {
    switch (command) {
      case 'query-status':
        return { status: this.runState, running: this.runState === 'running' };
      case 'query-memory-size-summary':
        return { 'base-memory': this.memoryBytes, 'plugged-memory': 0 };
      case 'query-memdev':
        return [{ id: 'pc.ram', size: this.memoryBytes }];
      case 'query-balloon':
        return { actual: this.left };
      case 'query-migrate':
        return this.#migrate();
      case 'qom-list':
        return args.path === '/machine/peripheral' && this.balloon
          ? [
              { name: 'type', type: 'string' },
              { name: 'air', type: 'child<virtio-balloon-pci>' },
            ]
          : [];
      case 'qom-get':
        return args.property === 'guest-stats'
          ? {
              'last-update': this.updated,
              stats: { 'stat-free-memory': 4096, 'stat-swap-in': -1, 'stat-new': 5 },
            }
          : this.interval;
      case 'x-query-virtio-status':
        return {
          'guest-features': { 'dev-features': this.features, transports: ['VIRTIO_RING_F_EVENT_IDX: words'] },
          status: { statuses: this.driver ? ['VIRTIO_CONFIG_S_DRIVER_OK: words'] : [] },
          isr: 0,
          broken: false,
        };
      default:
        return {};
    }
  }
}
