/** What a Linux 6.12 guest shows on the device, with packed rings, on QEMU's generic vhost-user device. */
import { genericDevice } from './front-ends.ts';
import { linuxGuestSuite } from './suite.ts';

linuxGuestSuite(genericDevice('linux-6.12', 'packed'), 'rings');
