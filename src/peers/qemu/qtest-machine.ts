/**
 * A QEMU machine with a balloon device and no guest, for our driver: registers by qtest, memory by a file
 * that we and QEMU share, so that rings and pages are reached at full speed. What is written there by us,
 * QEMU's dirty tracking does not see; writes that must count as a guest's go through {@link Qtest.write}.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { FileBacking } from '../../memory/file-backing.ts';
import { GuestMemory, MemoryRegion } from '../../memory/guest-memory.ts';
import type { OwnedFd } from '../../sys/fd.ts';
import { fileStatus } from '../../sys/file.ts';
import { listenOnce, type PendingConnection } from './listen-once.ts';
import { QemuProcess } from './process.ts';
import { Qtest } from './qtest.ts';
import { BALLOON_DEVICE_ID, VirtioPciTransport } from './virtio-pci.ts';

/** q35 (hw/i386/pc_q35.c): from this much memory on, what lies above the first part moves to 4 GiB. */
const SPLIT_FROM_BYTES = 0xb000_0000;
const LOW_BYTES_WHEN_SPLIT = 0x8000_0000;
const HIGH_START = 2 ** 32;

/** PCI slots of q35 that nothing else takes; the balloon's. */
const BALLOON_SLOT = 4;
const BALLOON_ID = 'balloon';

const FIRMWARE_BYTES = 64 * 1024;
/** Where an x86 processor begins: 16 bytes below the end of the firmware. */
const RESET_VECTOR = FIRMWARE_BYTES - 16;
const NOP = 0x90;
/** cli; hlt; and back to hlt. */
const SLEEP_FOR_EVER = [0xfa, 0xf4, 0xeb, 0xfd];

export interface QtestMachineOptions {
  /** Bytes of guest memory, a multiple of 4 KiB. */
  readonly memoryBytes: number;
  /**
   * Lets the machine run, with a firmware that only sleeps: QEMU asks for free page hints while the machine
   * runs, and can migrate it. Default: stopped from the start.
   */
  readonly running?: boolean;
  /** What its processor runs; one that only sleeps when left out. */
  readonly firmware?: Uint8Array;
  /** The host backs all memory from the start, and QEMU has it mapped. */
  readonly preallocated?: boolean;
  /** Properties of the balloon device, for example `{ 'free-page-reporting': 'on' }`. */
  readonly balloon?: Readonly<Record<string, string>>;
  /** Further arguments for QEMU. */
  readonly args?: readonly string[];
}

interface MemoryPart {
  readonly guestAddress: number;
  readonly fileOffset: number;
  /** Bytes. */
  readonly size: number;
}

/** Where a q35 machine has its memory: in one piece or two. */
export function q35Layout(bytes: number): readonly MemoryPart[] {
  if (bytes < SPLIT_FROM_BYTES) return [{ guestAddress: 0, fileOffset: 0, size: bytes }];
  return [
    { guestAddress: 0, fileOffset: 0, size: LOW_BYTES_WHEN_SPLIT },
    { guestAddress: HIGH_START, fileOffset: LOW_BYTES_WHEN_SPLIT, size: bytes - LOW_BYTES_WHEN_SPLIT },
  ];
}

/** The memory of a q35 machine, mapped from its file. Takes no ownership of `fd`. */
function q35Memory(fd: OwnedFd, bytes: number): GuestMemory {
  const memory = new GuestMemory();
  try {
    for (const { guestAddress, fileOffset, size } of q35Layout(bytes)) {
      const backing = new FileBacking(fd.duplicate(), fileOffset, size);
      memory.add(new MemoryRegion({ guestAddress, size, userAddress: guestAddress }, backing));
    }
    return memory;
  } catch (error) {
    memory.close();
    throw error;
  }
}

function sleepingFirmware(): Uint8Array {
  const firmware = new Uint8Array(FIRMWARE_BYTES).fill(NOP);
  firmware.set(SLEEP_FOR_EVER, RESET_VECTOR);
  return firmware;
}

export class QtestMachine {
  readonly qemu: QemuProcess;
  readonly qtest: Qtest;
  readonly memory: GuestMemory;
  /** The balloon device's path in QEMU's object model. */
  readonly balloonPath = `/machine/peripheral/${BALLOON_ID}`;

  private constructor(qemu: QemuProcess, qtest: Qtest, memory: GuestMemory) {
    this.qemu = qemu;
    this.qtest = qtest;
    this.memory = memory;
  }

  /** @throws MissingPeerError when QEMU is not installed, QemuProcessError when it does not come up */
  static async start(options: QtestMachineOptions): Promise<QtestMachine> {
    const { memoryBytes, running = false, preallocated = false, balloon = {}, args = [] } = options;
    const { firmware: program = sleepingFirmware() } = options;
    const properties = { id: BALLOON_ID, addr: String(BALLOON_SLOT), 'disable-legacy': 'on', ...balloon };
    const device = [
      'virtio-balloon-pci',
      ...Object.entries(properties).map(([name, value]) => `${name}=${value}`),
    ];
    let listener: PendingConnection | undefined;
    let qemu: QemuProcess | undefined;
    try {
      qemu = await QemuProcess.start(
        {
          machine: 'q35',
          memoryBytes,
          sharedMemory: true,
          preallocated,
          args: ['-accel', 'tcg', ...args, '-device', device.join(',')],
        },
        async directory => {
          const socket = join(directory, 'qtest');
          listener = await listenOnce(socket);
          const firmware = join(directory, 'firmware');
          writeFileSync(firmware, program);
          return [
            '-bios',
            firmware,
            ...(running ? [] : ['-S']),
            '-qtest',
            `unix:${socket}`,
            '-qtest-log',
            '/dev/null',
          ];
        },
      );
      const qtest = new Qtest(await qemu.connection(listener!, 'qtest'));
      return new QtestMachine(qemu, qtest, q35Memory(qemu.memoryFd!, memoryBytes));
    } catch (error) {
      listener?.close();
      await qemu?.kill();
      throw error;
    }
  }

  /** Bytes of guest memory that the host holds right now. */
  residentBytes(): number {
    return fileStatus(this.qemu.memoryFd!).residentBytes;
  }

  /** The balloon device, for a driver. A machine has one driver at a time, and takes one in its life. */
  openBalloon(): Promise<VirtioPciTransport> {
    return VirtioPciTransport.open(this.qtest, BALLOON_DEVICE_ID);
  }

  /** Settles when nothing of the machine is left. Idempotent. */
  async close(): Promise<void> {
    this.qtest.close();
    await this.qemu.kill();
    this.memory.close();
  }
}
