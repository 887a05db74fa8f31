import {
  CLIENT_CAPABILITIES_META_KEY,
  type InputRequiredResult,
  type ServerContext,
} from '@modelcontextprotocol/server';
import type { Fields } from '../protocol/messages.ts';
import type { InputExchange, InputRequests } from '../upstreams/input-requests.ts';
import type { RequestState, RequestStates, StatedRequest } from './request-states.ts';

/** What a request says of questions: what its sender can be asked, and what it answers. */
export interface McpInputExchange {
  readonly capabilities: Fields;
  readonly inputResponses: Fields | undefined;
  /** As this server gave it. */
  readonly requestState: string | undefined;
}

/** One request that may be answered by questions, in turn with its answer. */
export interface InputRound {
  readonly input: InputExchange;
  /** What came back with the answer; undefined for a request that begins. */
  readonly before: RequestState | undefined;
  /** The answer that asks. */
  requireInput(inputRequests: InputRequests, state: Pick<RequestState, 'callId' | 'asked'>): InputRequiredResult;
}

/** Undefined in the older era, whose servers would have to ask over a connection. */
export function inputExchangeOf({ mcpReq }: ServerContext, modern: boolean): McpInputExchange | undefined {
  if (!modern) return undefined;
  const capabilities: unknown = Reflect.get(mcpReq.envelope ?? {}, CLIENT_CAPABILITIES_META_KEY);
  return {
    capabilities: typeof capabilities === 'object' && capabilities !== null ? { ...capabilities } : {},
    inputResponses: mcpReq.inputResponses,
    requestState: mcpReq.requestState(),
  };
}

/** @throws TollgateError REQUEST_STATE_INVALID */
export function openInputRound(states: RequestStates, request: StatedRequest, input: McpInputExchange): InputRound {
  const { capabilities, inputResponses, requestState } = input;
  const before = requestState === undefined ? undefined : states.open(request, requestState);
  return {
    input: { capabilities, inputResponses, requestState: before?.state, server: before?.server },
    before,
    requireInput({ inputRequests, requestState: state, server }, { callId, asked }) {
      return {
        resultType: 'input_required',
        ...(Object.keys(inputRequests).length > 0
          ? { inputRequests: inputRequests as NonNullable<InputRequiredResult['inputRequests']> }
          : {}),
        requestState: states.seal(request, { server, callId, asked, state }),
      };
    },
  };
}
