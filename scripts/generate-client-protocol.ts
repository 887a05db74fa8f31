import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { renderClientProtocol, renderPythonProtocol } from './lib/client-protocol.ts';
import { PROJECT_ROOT } from './lib/processes.ts';

/** Writes the protocol tables of the client packages. Run it after a change of src/protocol. */
writeFileSync(join(PROJECT_ROOT, 'packages/client/src/protocol.ts'), renderClientProtocol());
writeFileSync(join(PROJECT_ROOT, 'packages/python/src/tollgate_client/protocol.py'), renderPythonProtocol());
