/** A guest of QEMU's, asked and steered by its monitor (QMP). */

import type { GuestState } from '../control/contract.ts';
import { GuestStateError } from '../control/errors.ts';
import { QmpMonitor, type QmpMonitorOptions } from '../peers/qemu/monitor.ts';
import {
  findBalloon,
  guestStatsInterval,
  onQemuEvent,
  queryBalloon,
  queryGuestStats,
  queryMemoryBackends,
  queryMemorySize,
  queryStatus,
  queryVirtioStatus,
  setBalloon,
  setGuestStatsInterval,
  tellsVirtioStatus,
} from '../peers/qemu/qmp-commands.ts';
import type {
  GuestMachine,
  MachineListener,
  MachineLook,
  MachineMemory,
  MachineStatistics,
} from './guest-machine.ts';
import { type QemuMachine, stateOf, troubleOf } from './machine-state.ts';
import { featureName, statisticsOf } from './names.ts';
import { ProcessMemory } from './process-memory.ts';

export interface QemuGuestOptions extends QmpMonitorOptions {
  readonly name: string;
  /** Path of the monitor's Unix socket (`-qmp unix:PATH,server=on,wait=off`). */
  readonly qmpPath: string;
}

export class QmpMachine implements GuestMachine {
  readonly monitor: QmpMonitor;
  readonly #name: string;
  readonly #processMemory = new ProcessMemory();

  constructor({ name, qmpPath, ...options }: QemuGuestOptions) {
    this.#name = name;
    this.monitor = new QmpMonitor(qmpPath, options);
  }

  get path(): string {
    return this.monitor.path;
  }

  get connected(): boolean {
    return this.monitor.connected;
  }

  listen(listener: MachineListener): void {
    this.monitor.onConnection(lost => listener.connection(lost));
    onQemuEvent(this.monitor, 'BALLOON_CHANGE', ({ actual }) => listener.balloon(actual));
    onQemuEvent(this.monitor, 'RESET', () => listener.reset());
    onQemuEvent(this.monitor, 'STOP', () => listener.state());
    onQemuEvent(this.monitor, 'RESUME', () => listener.state());
  }

  async look(): Promise<MachineLook> {
    const [memory, machine, backends] = await Promise.all([
      this.memory(),
      this.#machine(),
      queryMemoryBackends(this.monitor),
    ]);
    const residentBytes = await this.#processMemory.residentBytes(this.monitor.pid, backends);
    return {
      ...memory,
      hasBalloon: machine.balloon !== undefined,
      state: stateOf(machine),
      features: machine.virtio === null ? null : machine.virtio.features.map(featureName),
      residentBytes,
      trouble: troubleOf(machine),
    };
  }

  async memory(): Promise<MachineMemory> {
    const [memoryBytes, leftBytes] = await Promise.all([
      queryMemorySize(this.monitor),
      queryBalloon(this.monitor),
    ]);
    return { memoryBytes, leftBytes };
  }

  async state(): Promise<GuestState | null> {
    return stateOf(await this.#machine());
  }

  async expectBalloon(): Promise<void> {
    await this.#balloon();
  }

  async statistics(): Promise<MachineStatistics> {
    const stats = await queryGuestStats(this.monitor, await this.#balloon());
    return { updatedMs: stats.updatedMs, statistics: statisticsOf(stats) };
  }

  async interval(): Promise<number> {
    return guestStatsInterval(this.monitor, await this.#balloon());
  }

  get hasDefinition(): boolean {
    return false;
  }

  async setInterval(seconds: number): Promise<void> {
    await setGuestStatsInterval(this.monitor, await this.#balloon(), seconds);
  }

  async setLeft(bytes: number): Promise<void> {
    await setBalloon(this.monitor, bytes);
  }

  close(): void {
    this.monitor.close();
  }

  async #machine(): Promise<QemuMachine> {
    const { monitor } = this;
    const [{ running }, balloon] = await Promise.all([queryStatus(monitor), findBalloon(monitor)]);
    const isAsked = balloon !== undefined && tellsVirtioStatus(monitor.version);
    const virtio = isAsked ? await queryVirtioStatus(monitor, balloon) : null;
    return { running, balloon, virtio };
  }

  /** The balloon device's path in QEMU. @throws GuestStateError when there is none */
  async #balloon(): Promise<string> {
    const path = await findBalloon(this.monitor);
    if (path !== undefined) return path;
    throw new GuestStateError(`${this.#name} has no balloon; start its QEMU with -device virtio-balloon-pci`);
  }
}
