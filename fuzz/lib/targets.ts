import { FRAME_TARGETS } from '../targets/frames.ts';
import { FRONT_END_TARGETS } from '../targets/front-ends.ts';
import { HEAD_TARGETS } from '../targets/heads.ts';
import { MCP_TARGETS } from '../targets/mcp.ts';
import { MESSAGE_TARGETS } from '../targets/messages.ts';
import { SCHEMA_TARGETS } from '../targets/schemas.ts';
import { SOCKET_IO_TARGETS } from '../targets/socket-io.ts';
import { TOKEN_TARGETS } from '../targets/tokens.ts';
import { USAGE_TARGETS } from '../targets/usage-routes.ts';
import type { Target } from './target.ts';

/** Every parser that reads bytes of clients, tokens or tool servers. */
export const TARGETS: readonly Target[] = [
  ...FRAME_TARGETS,
  ...MESSAGE_TARGETS,
  ...SOCKET_IO_TARGETS,
  ...HEAD_TARGETS,
  ...TOKEN_TARGETS,
  ...FRONT_END_TARGETS,
  ...MCP_TARGETS,
  ...USAGE_TARGETS,
  ...SCHEMA_TARGETS,
];
