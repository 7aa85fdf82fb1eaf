// `npm run sim`: builds what is missing and runs simulations. Options after `--` are passed on.
import { bootstrap, run } from './bootstrap.mjs';

bootstrap();
run(process.execPath, ['dist/sim/main.js', ...process.argv.slice(2)]);
