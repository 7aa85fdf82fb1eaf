// `npm run sim`: builds what is missing and runs simulations. Options after `--` are passed on.
import { bootstrap, follow } from './bootstrap.mjs';

bootstrap();
await follow(process.execPath, ['dist/sim/main.js', ...process.argv.slice(2)]);
