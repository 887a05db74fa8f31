import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { renderClientProtocol } from './lib/client-protocol.ts';
import { PROJECT_ROOT } from './lib/processes.ts';

/** Writes the protocol tables of the client package. Run it after a change of src/protocol. */
writeFileSync(join(PROJECT_ROOT, 'packages/client/src/protocol.ts'), renderClientProtocol());
