// `npm run build:linux`: builds the balloon driver in linux/ for the User Mode Linux that guests run here, unless that was
// done, and prints the module's path. For a PC's kernel: `make -C linux KDIR=…` (linux/README.md). With --debug-kernel it
// builds a kernel that looks for faults as well, and prints the directory of both (debug-kernel.mjs).
import { bootstrap } from './bootstrap.mjs';

bootstrap();
try {
  process.stdout.write(`${await build()}\n`);
} catch (error) {
  process.stderr.write(`build:linux: ${error.message}\n`);
  process.exitCode = 1;
}

async function build() {
  if (process.argv.includes('--debug-kernel')) return (await import('./debug-kernel.mjs')).debugKernel();
  return (await import('../dist/peers/uml/driver-module.js')).driverModule();
}
