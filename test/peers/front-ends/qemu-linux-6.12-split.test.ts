/** What a Linux 6.12 guest shows on the device, with split rings, on QEMU's generic vhost-user device. */
import { genericDevice } from './front-ends.ts';
import { linuxGuestSuite } from './suite.ts';

linuxGuestSuite(genericDevice('linux-6.12', 'split'), 'essential');
