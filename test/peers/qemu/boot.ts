/**
 * What every Linux guest of a QEMU has: its kernel and file system, and two serial ports that end with us, one
 * for the kernel's messages and one for commands. What devices the machine has is not known here.
 */
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { BALLOON_MODULE, initScript } from '../../../src/peers/linux/init.ts';
import { packInitramfs } from '../../../src/peers/linux/initramfs.ts';
import { moduleName, readModule } from '../../../src/peers/qemu/cloud-kernel.ts';
import { listenOnce, type PendingConnection } from '../../../src/peers/qemu/listen-once.ts';
import { QemuProcess } from '../../../src/peers/qemu/process.ts';
import type { CloudKernel } from './cloud-kernel.ts';

/** The second serial port, which the kernel leaves alone. */
const COMMAND_TERMINAL = '/dev/ttyS1';
const modulePath = (file: string): string => `/lib/modules/${moduleName(file)}.ko`;

/**
 * The virtio bus comes up before the first command; the balloon's driver is loaded by one, so that its
 * failure shows.
 */
function guestFiles(kernel: CloudKernel): string {
  const transport = kernel.transportModules.map(file => [modulePath(file), readModule(file)] as const);
  return packInitramfs('qemu', {
    init: initScript(COMMAND_TERMINAL, transport.map(([path]) => `insmod ${path}`).join('\n')),
    modules: new Map([...transport, [BALLOON_MODULE, readModule(kernel.balloonModule)]]),
  });
}

/** Any fault of the kernel ends QEMU, which tells us. @throws MissingPeerError */
export function bootArguments(kernel: CloudKernel, kernelArguments: readonly string[]): string[] {
  const commandLine = ['console=ttyS0', 'rdinit=/init', 'panic=-1', 'oops=panic', ...kernelArguments];
  return ['-kernel', kernel.image, '-initrd', guestFiles(kernel), '-append', commandLine.join(' ')];
}

export type QemuOptions = Parameters<typeof QemuProcess.start>[0];

export interface StartedQemu {
  readonly qemu: QemuProcess;
  /** The first serial port. */
  readonly kernel: Socket;
  /** The second serial port. */
  readonly commands: Socket;
}

/** A QEMU with its guest's two serial ports connected to us. @throws as {@link QemuProcess.start} does */
export async function startWithSerialPorts(options: QemuOptions): Promise<StartedQemu> {
  const pending: PendingConnection[] = [];
  let qemu: QemuProcess | undefined;
  try {
    qemu = await QemuProcess.start(options, async directory => {
      const serial: string[] = [];
      for (const name of ['kernel', 'commands']) {
        const path = join(directory, name);
        pending.push(await listenOnce(path));
        serial.push('-chardev', `socket,id=${name},path=${path}`, '-serial', `chardev:${name}`);
      }
      return serial;
    });
    const kernel = await qemu.connection(pending[0], 'first serial port');
    const commands = await qemu.connection(pending[1], 'second serial port');
    return { qemu, kernel, commands };
  } catch (error) {
    for (const { close } of pending) close();
    await qemu?.kill();
    throw error;
  }
}
