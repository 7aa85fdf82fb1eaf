/** What a Linux 7.3 guest shows on the device, with split rings, on QEMU's generic vhost-user device. */
import { genericDevice } from './front-ends.ts';
import { linuxGuestSuite } from './suite.ts';

linuxGuestSuite(genericDevice('linux-7.3', 'split'), 'rings');
