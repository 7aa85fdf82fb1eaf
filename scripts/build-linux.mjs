// `npm run build:linux`: builds the balloon driver in linux/ for the User Mode Linux that guests run here, unless that was
// done, and prints the module's path. For a PC's kernel: `make -C linux KDIR=…` (linux/README.md).
import { bootstrap } from './bootstrap.mjs';

bootstrap();
const { driverModule } = await import('../dist/peers/uml/driver-module.js');
try {
  process.stdout.write(`${await driverModule()}\n`);
} catch (error) {
  process.stderr.write(`build:linux: ${error.message}\n`);
  process.exitCode = 1;
}
