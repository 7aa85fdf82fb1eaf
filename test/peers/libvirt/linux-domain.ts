/** Domains of libvirt that run Linux with its balloon's driver, for tests. */
import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { packInitramfs } from '../../../src/peers/linux/initramfs.ts';
import { type MissingPeerError, missingPrograms } from '../../../src/peers/programs.ts';
import { moduleName, readModule } from '../../../src/peers/qemu/cloud-kernel.ts';
import { findCloudKernel, missingCloudKernel } from '../qemu/cloud-kernel.ts';

export const WHOLE_BALLOON =
  "<memballoon model='virtio' autodeflate='on' freePageReporting='on'><stats period='1'/></memballoon>";

/** What these tests need and this machine lacks. */
export const missingForLinux = (): Promise<MissingPeerError | undefined> =>
  missingCloudKernel(missingPrograms('libvirtd', 'virsh', 'qemu-system-x86_64', 'busybox'));

export function domain(name: string, balloon: string, boot = ''): string {
  return `<domain type='qemu'><name>${name}</name><memory unit='MiB'>256</memory><vcpu>1</vcpu>
    <os><type arch='x86_64' machine='q35'>hvm</type>${boot}</os>
    <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>${balloon}</devices></domain>`;
}

/** Linux with its balloon's driver loaded, and nothing to do but `work`, in its shell. */
export async function linux(directory: string, work = ''): Promise<string> {
  const kernel = await findCloudKernel();
  const files = [...kernel.transportModules, kernel.balloonModule];
  const modules = new Map(files.map(file => [`/lib/modules/${moduleName(file)}.ko`, readModule(file)]));
  const load = [...modules.keys()].map(path => `insmod ${path}`).join('\n');
  const init = `#!/bin/sh\nexport PATH=/bin\nmount -t proc proc /proc\n${load}\n${work}\nwhile :; do sleep 1000; done\n`;
  const image = join(directory, 'vmlinuz');
  const initrd = join(directory, 'initrd');
  copyFileSync(kernel.image, image);
  copyFileSync(packInitramfs('libvirt', { init, modules }), initrd);
  return `<kernel>${image}</kernel><initrd>${initrd}</initrd><cmdline>rdinit=/init quiet panic=-1</cmdline>`;
}
