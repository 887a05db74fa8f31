import { AUTH_SERVICE_TARGETS } from '../targets/auth-service.ts';
import { EVENT_STREAM_TARGETS } from '../targets/event-streams.ts';
import { FRAME_TARGETS } from '../targets/frames.ts';
import { FRONT_END_TARGETS } from '../targets/front-ends.ts';
import { HEAD_TARGETS } from '../targets/heads.ts';
import { IDENTITY_TARGETS } from '../targets/identity.ts';
import { MCP_TARGETS } from '../targets/mcp.ts';
import { MESSAGE_TARGETS } from '../targets/messages.ts';
import { MODEL_TARGETS } from '../targets/models.ts';
import { REMOTE_AGENT_TARGETS } from '../targets/remote-agents.ts';
import { ROUTE_TARGETS } from '../targets/routes.ts';
import { SCHEMA_TARGETS } from '../targets/schemas.ts';
import { SOCKET_IO_TARGETS } from '../targets/socket-io.ts';
import { TOKEN_TARGETS } from '../targets/tokens.ts';
import { TOOL_SERVER_TARGETS } from '../targets/tool-servers.ts';
import { USAGE_TARGETS } from '../targets/usage-routes.ts';
import type { Target } from './target.ts';

/** Every parser that reads bytes of clients, tokens, tool servers, models, agents or identity providers. */
export const TARGETS: readonly Target[] = [
  ...FRAME_TARGETS,
  ...MESSAGE_TARGETS,
  ...SOCKET_IO_TARGETS,
  ...HEAD_TARGETS,
  ...TOKEN_TARGETS,
  ...FRONT_END_TARGETS,
  ...MCP_TARGETS,
  ...USAGE_TARGETS,
  ...ROUTE_TARGETS,
  ...AUTH_SERVICE_TARGETS,
  ...SCHEMA_TARGETS,
  ...IDENTITY_TARGETS,
  ...TOOL_SERVER_TARGETS,
  ...MODEL_TARGETS,
  ...REMOTE_AGENT_TARGETS,
  ...EVENT_STREAM_TARGETS,
];
